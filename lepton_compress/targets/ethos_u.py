"""The runtime `ethos-u`: what Arm's compiler Vela makes of an artifact for an Ethos-U."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lepton_compress.artifacts import Fit
from lepton_compress.findings import Finding, FindingsError
from lepton_compress.registry import Params, nearest, plugin
from lepton_compress.targets.installed import lacking

PACKAGES = ("ethosu.vela",)

ACCELERATORS = (
    *("ethos-u55-32", "ethos-u55-64", "ethos-u55-128", "ethos-u55-256"),
    *("ethos-u65-256", "ethos-u65-512"),
    *("ethos-u85-128", "ethos-u85-256", "ethos-u85-512", "ethos-u85-1024", "ethos-u85-2048"),
)
SYSTEMS = {
    "Ethos_U55_Deep_Embedded": "flash",
    "Ethos_U55_High_End_Embedded": "flash",
    "Ethos_U65_Embedded": "flash",
    "Ethos_U65_Mid_End": "DRAM",
    "Ethos_U65_High_End": "DRAM",
    "Ethos_U65_Client_Server": "DRAM",
    "Ethos_U85_SYS_Flash_Low": "flash",
    "Ethos_U85_SYS_Flash_High": "flash",
    "Ethos_U85_SYS_DRAM_Low": "DRAM",
    "Ethos_U85_SYS_DRAM_Mid": "DRAM",
    "Ethos_U85_SYS_DRAM_High": "DRAM",
}
"""System configurations in Vela's own file, to the memory beside the SRAM."""
MODES = (
    *("Sram_Only", "Shared_Sram", "Dedicated_Sram"),
    *("Dedicated_Sram_256KB", "Dedicated_Sram_384KB", "Dedicated_Sram_512KB"),
)

_USUAL = {
    "ethos-u55": "Ethos_U55_High_End_Embedded",
    "ethos-u65": "Ethos_U65_Client_Server",
    "ethos-u85": "Ethos_U85_SYS_DRAM_Mid",
}


class EthosU(Params):
    """Which accelerator, and the memories around it."""

    accelerator: str = Field(
        description="The accelerator and its multiply-accumulates a cycle.",
        json_schema_extra={"enum": list(ACCELERATORS)},
    )
    system_config: str | None = Field(
        None,
        description="Clock and bandwidths, a system configuration of Vela's `Arm/vela.ini`; that "
        "which Vela takes for the accelerator by default.",
        json_schema_extra={"enum": list(SYSTEMS)},
    )
    memory_mode: str | None = Field(
        None,
        description="Where weights and activations lie; `Shared_Sram` with flash and "
        "`Dedicated_Sram_384KB` with DRAM by default.",
        json_schema_extra={"enum": list(MODES)},
    )
    optimise: Literal["Performance", "Size"] = Field(
        "Performance", description="What Vela schedules for: time, or less memory."
    )
    arena_cache_size: Annotated[int, Field(strict=True, ge=1)] | None = Field(
        None, description="Bytes of SRAM to schedule for; the memory mode's own by default."
    )

    @property
    def system(self) -> str:
        """The system configuration, chosen or usual."""
        return self.system_config or _USUAL[family(self.accelerator)]

    @property
    def mode(self) -> str:
        """The memory mode, chosen or usual."""
        usual = "Shared_Sram" if SYSTEMS[self.system] == "flash" else "Dedicated_Sram_384KB"
        return self.memory_mode or usual

    @model_validator(mode="after")
    def _belongs(self) -> Self:
        """Vela takes any configuration for any accelerator, and its figures then mean nothing."""
        for key, value, known in (
            ("accelerator", self.accelerator, ACCELERATORS),
            ("system_config", self.system_config, tuple(SYSTEMS)),
            ("memory_mode", self.memory_mode, MODES),
        ):
            if value is not None and value not in known:
                mend = nearest(value, list(known))
                raise FindingsError([Finding((key,), f"unknown {value!r}", mend)])
        if family(self.system) != family(self.accelerator):
            fitting = [each for each in SYSTEMS if family(each) == family(self.accelerator)]
            problem = f"{self.system} does not belong to {self.accelerator}"
            raise FindingsError(
                [Finding(("system_config",), problem, f"use {' or '.join(fitting)}")]
            )
        if self.mode.startswith("Dedicated") and SYSTEMS[self.system] != "DRAM":
            problem = f"{self.mode} writes to the memory beside the SRAM, which is flash here"
            raise FindingsError(
                [Finding(("memory_mode",), problem, "use Shared_Sram or Sram_Only")]
            )
        return self


def family(name: str) -> str:
    """`ethos-u55` of an accelerator or a system configuration."""
    return "-".join(name.lower().replace("_", "-").split("-")[:2])


def _requires(params: EthosU, targets: tuple[str, ...]) -> list[str]:
    return lacking("ethos-u", ["ethosu"], "ethos-u")


@plugin(
    "runtime",
    "ethos-u",
    EthosU,
    formats=("litert",),
    simulates=True,
    tells=("time", "ram", "flash"),
    requires=_requires,
)
def ethos_u(path: Path, params: EthosU) -> Fit:
    """Arm Ethos-U, by the estimates of its compiler Vela (extra `ethos-u`).

    Args:
        path: a .tflite file.
        params: the accelerator and its memories.

    Returns:
        Seconds of one call where all of it runs on the accelerator (conversions of the model's
        inputs and outputs aside, which the host does), bytes of SRAM and of flash, and each
        operator that is left to the host. An artifact of which nothing runs on the accelerator,
        or which Vela refuses, has a `problem`.

    Raises:
        MissingExtraError: Vela is not installed.
        InputError: the file is no LiteRT model.
    """
    from lepton_compress.targets import vela

    return vela.fit(path, params)
