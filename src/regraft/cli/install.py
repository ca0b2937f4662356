# SPDX-License-Identifier: Apache-2.0
"""`regraft install`: install a bundle, as swupdate would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from regraft.cli._network import Network, network_options
from regraft.cli._options import Size, examples, json_option, progress_option, seed_option, workers_option
from regraft.cli._output import emit_json, say, size
from regraft.cli._progress import meter
from regraft.cli.swu._bundle import TrustChoice, opened, trust_options
from regraft.errors import UsageError

if TYPE_CHECKING:
    from regraft.device.hardware import Hardware
    from regraft.device.versions import Installed
    from regraft.swupdate.handlers import Forecast, Report
    from regraft.swupdate.installer import Device, Prepared


@click.command(
    epilog=examples(
        "regraft install -i update.swu -k cert.pem -H gateway:1.0",
        "regraft install -i update.swu -k cert.pem -e stable,copy2 -n     what it would cost, nothing is written",
        "curl -s https://host/update.swu | regraft install -i - -k cert.pem",
    )
)
@click.option("-i", "--image", "bundle", required=True, metavar="BUNDLE", help="The bundle; - for standard input.")
@trust_options
@click.option("-e", "--select", "select", default="", metavar="SET,MODE", help="Software set and mode to install.")
@click.option("-H", "--hwrevision", default="", metavar="BOARD:REV", help="Hardware; default: /etc/hwrevision.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be done and what it costs. Writes nothing.")
@click.option("-c", "--check", "only_check", is_flag=True, help="Verify the bundle for this device and exit.")
@click.option("-N", "--no-downgrading", default="", metavar="VERSION", help="Refuse releases older than this.")
@click.option("-R", "--no-reinstalling", default="", metavar="VERSION", help="Refuse this very release.")
@click.option("--max-version", default="", metavar="VERSION", help="Refuse releases newer than this.")
@click.option("-f", "--file", "config", metavar="FILE", help="swupdate.cfg, of which `versions` is used.")
@click.option("-B", "--bootloader", type=click.Choice(["none"]), help="none: leave bootloader variables alone.")
@click.option("-M", "--no-transaction-marker", is_flag=True, help="As with swupdate; regraft sets no marker yet.")
@click.option("-m", "--no-state-marker", is_flag=True, help="As with swupdate; regraft sets no marker yet.")
@click.option("--encrypted-description", is_flag=True, help="sw-description itself is encrypted, too, with -K.")
@click.option("--unsigned", is_flag=True, help="Install without any verification of the publisher. For laboratories.")
@click.option("--delta-url", "urls", multiple=True, metavar="ZCKFILE=URL", help="URL of a dynamic zckfile. Repeatable.")
@click.option("--bandwidth", type=Size(), default="20M", show_default=True, help="For -n: bits per second of the link.")
@click.option("--rtt", type=click.FloatRange(0, 60_000), default=100, show_default=True, help="For -n: round trip, ms.")
@seed_option
@network_options
@workers_option
@progress_option
@click.option("-v", "--verbose", is_flag=True, help="Name the source of every chunk, as debug-chunks does.")
@json_option
def command(
    bundle: str,
    network: Network,
    seeds: tuple[str, ...],
    workers: int,
    progress: str,
    verbose: bool,
    as_json: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Install BUNDLE on this device: verify the signature, select, check hardware and version, fetch, write, read back.

    Killed or cut off at any point, the same command continues. Handlers: raw, rawfile, delta (chained to these).
    """
    from regraft.engine.ranges import Link
    from regraft.swupdate import installer
    from regraft.swupdate.handlers import Context

    keys = _keys(options)
    device = _device(options)
    link = Link(bandwidth=max(options["bandwidth"] / 8, 1), round_trip=options["rtt"] / 1000)
    with meter(progress) as shown, opened(bundle) as stream:
        context = Context(
            connect=network.connect,
            progress=shown,
            workers=workers,
            urls=_urls(options["urls"]),
            seeds=seeds,
            link=link,
        )
        prepared = installer.prepare(stream, device, keys, context)
        if options["only_check"]:
            installer.check(prepared, keys)
            reports: list[Report] = []
            forecasts: list[Forecast] = []
        elif options["dry_run"]:
            reports, forecasts = [], installer.forecast(prepared, keys)
        else:
            reports, forecasts = installer.install(prepared, keys), []
    mode = "check" if options["only_check"] else "dry-run" if options["dry_run"] else "install"
    if as_json:
        emit_json("install", _facts(mode, prepared, reports, forecasts))
        return
    signer = str(prepared.signer) if prepared.signer else "NOT VERIFIED"
    say(f"release {prepared.description.version}, {signer}")
    warnings = [text for forecast in forecasts for text in forecast.warnings]
    for warning in warnings + [text for report in reports for text in report.warnings]:
        say(f"warning: {warning}")
    for forecast in forecasts:
        _tell_forecast(forecast, link)
    for report in reports:
        _tell(report, verbose)
    if mode == "check":
        say("the bundle is complete, as signed, and for this device")


def _keys(options: dict[str, Any]) -> Any:
    from regraft.swupdate.installer import Keys

    names = ("key", "key_aes", "mode", "purpose", "signer_name")
    choice = TrustChoice(*(options[name] for name in names))
    policy = choice.policy()
    if (policy is None) != options["unsigned"]:
        raise UsageError(
            "an update is installed from somebody trusted",
            cure="give the certificate or public key with -k (or --unsigned, in a laboratory)",
        )
    aes = choice.description_key()
    if options["encrypted_description"] and aes is None:
        raise UsageError("an encrypted sw-description needs its key", cure="give the AES key file with -K")
    return Keys(policy, aes, options["encrypted_description"])


def _device(options: dict[str, Any]) -> Device:
    from regraft.cli.swu.build import set_mode_of
    from regraft.device.versions import VersionPolicy
    from regraft.swupdate.installer import Device

    return Device(
        hardware=_hardware(options["hwrevision"]),
        installed=_installed(options["config"]),
        versions=VersionPolicy(options["no_downgrading"], options["max_version"], options["no_reinstalling"]),
        set_mode=set_mode_of(options["select"]),
        bootloader=options["bootloader"] or "",
    )


def _hardware(option: str) -> Hardware | None:
    from regraft.device.hardware import REVISION_FILE, parse_option, parse_revision_file

    if option:
        return parse_option(option)
    text = _text(REVISION_FILE)
    return parse_revision_file(text) if text is not None else None


def _installed(config: str | None) -> Installed:
    from regraft.cli.swu._bundle import small_file
    from regraft.device.versions import VERSIONS_FILE, parse_versions_file, versions_of_config
    from regraft.formats import libconfig

    if config:
        content = small_file(config)
        listed = versions_of_config(libconfig.parse(content)) if content.strip() else None
        if listed is not None:
            return listed
    text = _text(VERSIONS_FILE)
    return parse_versions_file(text) if text is not None else ()


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except FileNotFoundError:
        return None


def _urls(pairs: tuple[str, ...]) -> dict[str, str]:
    from regraft.cli.swu.build import pair

    return dict(pair(text) for text in pairs)


def _facts(mode: str, prepared: Prepared, reports: list[Report], forecasts: list[Forecast]) -> dict[str, Any]:
    from regraft.cli.plan import cost_facts

    entries: list[dict[str, Any]] = [
        {
            "filename": forecast.entry.filename,
            "handler": forecast.entry.type,
            "target": forecast.target,
            "size": forecast.size,
            "cost": cost_facts(forecast.cost) if forecast.cost else None,
            "warnings": list(forecast.warnings),
        }
        for forecast in forecasts
    ]
    entries += [_report_facts(report) for report in reports]
    signer = prepared.signer
    return {
        "mode": mode,
        "version": prepared.description.version,
        "signer": str(signer) if signer else None,
        "reboot": prepared.description.reboot,
        "entries": entries,
    }


def _report_facts(report: Report) -> dict[str, Any]:
    from regraft.engine.progress import Origin

    facts: dict[str, Any] = {
        "filename": report.entry.filename,
        "handler": report.entry.type,
        "target": report.target,
        "size": report.size,
        "skipped": report.skipped or None,
        "wire": report.wire,
        "requests": report.requests,
        "without_seeds": report.full,
        "warnings": list(report.warnings),
    }
    if report.outcome is not None:
        outcome = report.outcome
        names = {
            Origin.IN_PLACE: "in_place", Origin.ZERO: "zeros", Origin.SEED: "from_seeds", Origin.FETCHED: "from_network"
        }  # fmt: skip
        facts |= {name: outcome.bytes_from(origin) for origin, name in names.items()}
        facts |= {"resumed": outcome.resumed, "replaced_chunks": outcome.replaced, "origins": _runs(report)}
    return facts


def _runs(report: Report) -> list[list[int]]:
    """[start, end, origin] of each run of the image, in bytes: what the picture of an update is drawn from."""
    runs: list[list[int]] = []
    if report.outcome is not None:
        bounds = report.outcome.plan.table.bounds
        for row, origin in enumerate(report.outcome.origins):
            if runs and runs[-1][2] == origin:
                runs[-1][1] = bounds[row + 1]
            else:
                runs.append([bounds[row], bounds[row + 1], int(origin)])
    return runs


def _tell_forecast(forecast: Forecast, link: Any) -> None:
    from regraft.cli.plan import cost_lines

    say(f"{forecast.entry.filename}: handler {forecast.entry.type}, {size(forecast.size)} to {forecast.target}")
    if forecast.cost is not None:
        for line in cost_lines(forecast.cost, link.bandwidth * 8, link.round_trip):
            say(f"  {line}")


def _tell(report: Report, verbose: bool) -> None:
    from regraft.engine.progress import Origin

    if report.skipped:
        say(f"{report.entry.filename}: skipped, {report.skipped}")
        return
    outcome = report.outcome
    if outcome is None:
        say(f"{report.entry.filename}: {size(report.size)} to {report.target}, read back and right")
        return
    if verbose or (report.entry.setting("debug-chunks") and report.entry.setting("zckloglevel")):
        bounds = outcome.plan.table.bounds
        for row, origin in enumerate(outcome.origins):
            say(f"chunk {row}: image {bounds[row]}, size {bounds[row + 1] - bounds[row]}, {Origin(origin).name}")
    kept = "" if not outcome.resumed else ", continued from an earlier run"
    saved = 1 - report.wire / report.full if report.full else 0.0
    say(f"{report.entry.filename}: {size(report.size)} to {report.target}, read back and right{kept}")
    say(
        f"  fetched {size(report.wire)} in {report.requests} requests instead of {size(report.full)}"
        f" ({saved:.0%} saved); reused {size(outcome.bytes_from(Origin.SEED))},"
        f" zeros {size(outcome.bytes_from(Origin.ZERO))}, in place {size(outcome.bytes_from(Origin.IN_PLACE))}"
    )
    if outcome.replaced:
        say(f"  {outcome.replaced} chunks of the seed were not as expected and were fetched")
