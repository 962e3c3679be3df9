"""From a record of the benchmarks to what is read: ratios, targets, curves, losses, tables, the page."""

from __future__ import annotations

import datetime as dt
import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2]))

from bench import idle, losses, page, plots, report, startup, targets, wire
from bench.curves import CURVES, lines, rise
from bench.peers import PEERS
from bench.record import Record, newest
from bench.shapes import Round


def rounds(*costs: float) -> list[Round]:
    """Rounds in which a message took so many microseconds, both ends half of it each."""
    return [Round(1_000_000, cost, client_cpu=cost / 2, server_cpu=cost / 2) for cost in costs]


@pytest.fixture
def record() -> Record:
    """One in which picows is ahead where 64 are in flight, and pure Rust wherever it runs."""
    made = Record.begin(dt.datetime(2025, 1, 31, tzinfo=dt.UTC))
    made.effort = {"rounds": 3, "seconds": 0.5}
    made.loops = {"sage-rust": "uvloop", "websockets": "asyncio"}
    made.versions = {"sage-ws": "0.1.0"}
    made.skipped = {"sage_ws, busy_poll at both ends": "busy_poll is not built yet"}
    made.shapes = {
        # the machine halves its speed for the second round: everybody loses, the ratios stand
        "sequential": {"sage-rust": rounds(50, 100, 50), "picows": rounds(100, 200, 110)},
        "64 in flight": {
            "sage-rust": rounds(4, 8, 4),
            "picows": rounds(2, 4, 2),
            "http": rounds(80, 160, 80),
        },
    }
    made.shapes["sequential"] = {
        name: [Round(one.messages, one.seconds, one.seconds / 1e6, one.seconds / 1e5) for one in its]
        for name, its in made.shapes["sequential"].items()
    }
    made.curves = {"pending": {"1": {"sage-rust": rounds(100)}, "10": {"sage-rust": rounds(5)}}}
    made.curves["pending"]["100"] = {"sage-rust": rounds(10)}
    made.wire = {
        "CBOR and JSON: 64 KiB": {"sage-rust": rounds(40, 80, 40), "sage-cbor": rounds(25, 40, 20)},
        "both directions: 64 in flight": {"sage-cbor": rounds(2, 4, 2), "sage-reversed": rounds(4, 8, 4)},
    }
    made.figures = {
        idle.MEMORY: {"sage-rust": [1024.0], "go": [20_000.0], "rust": [160.0]},
        idle.HANDSHAKES: {"sage-rust": [9_000.0], "websockets-orjson": [3_000.0], "go": [20_000.0]},
        startup.IMPORT: {"sage-rust": [0.030, 0.020, 0.040]},
    }
    return made


# ── the record ─────────────────────────────────────────────────────────────────────────
def test_a_record_is_read_as_it_was_written(record: Record, tmp_path: Path) -> None:
    record.dump(tmp_path / "one.json", targets.as_json(record))
    assert Record.load(tmp_path / "one.json") == record
    whole = json.loads((tmp_path / "one.json").read_text("utf-8"))
    assert whole["shapes"]["64 in flight"]["http"]["seconds"] == [80.0, 160.0, 80.0]
    assert {
        "row": "64 in flight",
        "reach": "≥ 5.5 × picows",
        "reached": [0.5, 0.5, 0.5],
        "met": False,
    } in whole["targets"]


def test_the_newest_record_counts_and_older_formats_do_not(record: Record, tmp_path: Path) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json", tmp_path / "c.json"]
    record.dump(paths[1])
    record.when = "2024-01-01T00:00:00+00:00"
    record.dump(paths[0])
    paths[2].write_text('{"when": "2030-01-01T00:00:00+00:00"}')
    assert newest(paths).when.startswith("2025")
    with pytest.raises(FileNotFoundError, match="no record"):
        newest(paths[2:])


def test_a_file_is_named_by_date_machine_and_commit(record: Record) -> None:
    record.machine["cpu"], record.commit = "Intel(R) Xeon(R) Processor", "0123456789-dirty"
    assert record.stem == "2025-01-31-intel-xeon-processor-0123456789-dirty"


# ── what follows from it ───────────────────────────────────────────────────────────────
def test_a_ratio_is_taken_inside_each_round(record: Record) -> None:
    turns = record.shapes["sequential"]
    got = report.ratio(turns["sage-rust"], turns["picows"])
    assert (got.least, got.middle, got.most) == pytest.approx((2.0, 2.0, 2.2))


def test_targets_are_met_missed_or_not_measured(record: Record) -> None:
    met = {(target.row, target.reach): target.met(record) for target in targets.TARGETS}
    assert met["64 in flight", "≥ 5.5 × picows"] is False
    assert met["sequential, p50", "≤ 0.65 × picows"] is True
    assert met["64 in flight", "≥ 0.45 of pure Rust"] is None
    assert met["memory of an idle connection", "≤ 2 KiB"] is True
    assert met["opening handshakes per core", "≥ 2 × websockets"] is True
    assert met["1 → 100,000 pending", "≤ 1.3 × from the lowest point"] is False
    assert met["`import sage_ws` over `import asyncio`, rust", "≤ 25 ms"] is False


def test_our_wire_is_compared_inside_each_round(record: Record) -> None:
    against_plain, against_json = [
        target for target in targets.OUR_WIRE if target.row == "CBOR, 64 KiB" and target.bound == 1.5
    ]
    got = against_plain.take(record)
    assert got is not None
    assert (got.least, got.middle, got.most) == pytest.approx((1.6, 2.0, 2.0))
    assert against_plain.met(record) is True
    assert against_json.met(record) is None


def test_a_record_without_our_wire_is_read(record: Record, tmp_path: Path) -> None:
    record.dump(tmp_path / "one.json")
    whole = json.loads((tmp_path / "one.json").read_text("utf-8"))
    del whole["wire"]
    (tmp_path / "one.json").write_text(json.dumps(whole), "utf-8")
    assert Record.load(tmp_path / "one.json").wire == {}


def test_contests_are_among_ours_and_have_keys_of_their_own() -> None:
    assert all(PEERS[line].name.startswith("sage-") for one in wire.CONTESTS for line in one.lines)
    assert len({one.key for one in wire.CONTESTS}) == len(wire.CONTESTS)
    assert {one.about for one in wire.CONTESTS} == wire.ABOUT.keys()
    keys = {one.key: one.lines for one in wire.CONTESTS}
    for target in targets.OUR_WIRE:
        assert isinstance(target, targets.Gain)
        assert {target.ours, target.theirs} <= set(keys[target.contest])


def test_every_target_names_peers_and_curves_that_there_are() -> None:
    for target in targets.TARGETS:
        if isinstance(target, targets.Speed):
            assert {target.ours, target.theirs} <= PEERS.keys()
    assert {target.curve for target in targets.TARGETS if isinstance(target, targets.Rise)} == {
        curve.name for curve in CURVES
    }


def test_a_rise_is_from_a_cheaper_point_to_a_dearer_one_on_its_right(record: Record) -> None:
    curve = next(curve for curve in CURVES if curve.name == "pending")
    assert rise(record, curve, "sage-rust").middle == 2
    assert [x for x, _ in lines(record, curve)["sage-rust"]] == [1, 10, 100]


def test_losses_are_found_and_explained_where_a_reason_is_known(record: Record) -> None:
    found = {(loss.row, loss.ahead): loss for loss in losses.losses(record)}
    assert found["64 in flight", "picows + orjson + pybase64"].by == "0.50× our cost"
    assert found[idle.HANDSHAKES, "SAGE in Go, gorilla"].by == "2.2× ours"
    assert found[idle.MEMORY, PEERS["rust"].title].reason == losses.REASONS["rust"]
    assert ("1 → 100,000 pending", "") in found
    assert ("sequential, p50", "picows + orjson + pybase64") not in found
    assert (idle.MEMORY, "SAGE in Go, gorilla") not in found


# ── tables and pages ───────────────────────────────────────────────────────────────────
def test_tables_name_every_peer_and_the_machine(record: Record) -> None:
    text = "\n".join(report.plain(record))
    assert "sage_ws, rust core" in text
    assert "250,000/s" in text
    assert "20×" in text
    assert str(record.machine["cpu"]) in text
    block = report.block(record)
    assert "| HTTP, aiohttp both ends |  |  | 12,500/s | 20× |" in block
    assert "3 interleaved rounds of 0.5 s. Taken on 2025-01-31" in block


def test_the_page_holds_the_record(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.losses.REASONS", {})
    text = page.render(record, {})
    assert "| 64 in flight | ≥ 5.5 × picows | 0.50 | 0.50 … 0.50 | **not met** |" in text
    assert "| HTTP, aiohttp both ends | 12,500/s | 20× | 20× … 20× | 80.0 |" in text
    assert "| messages in flight | 1 | 10 | 100 | rise |" in text
    assert "| `import sage_ws`, sage_ws, rust core | 30.0 ms |" in text
    assert "| CBOR, 64 KiB | ≥ 1.5 × plain JSON | 2.00 | 1.60 … 2.00 | met |" in text
    assert "| 64 in flight | the server asks | 250,000 | 0.50× | 0.50× … 0.50× | 4.00 |" in text
    assert "- sage_ws, busy_poll at both ends: busy_poll is not built yet" in text
    assert "*not explained yet*" in text
    assert "$" not in text


def test_plots_are_drawn_and_do_not_change_by_themselves(record: Record, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    first = plots.draw(record, lambda name: tmp_path / f"{name}.svg")
    again = plots.draw(record, lambda name: tmp_path / f"{name}-again.svg")
    assert first.keys() == {"ratios", "pending"}
    assert all(first[name].read_bytes() == again[name].read_bytes() for name in first)


def test_the_block_between_the_comments_is_rewritten(tmp_path: Path) -> None:
    written = tmp_path / "page.md"
    written.write_text(f"above\n{page.BEGIN}\nold\n{page.END}\nbelow\n")
    page.rewrite(written, "new")
    assert written.read_text() == f"above\n{page.BEGIN}\nnew\n{page.END}\nbelow\n"
    written.write_text("no place here")
    with pytest.raises(ValueError, match=r"page\.md has no <!-- bench:begin -->"):
        page.rewrite(written, "new")


@pytest.mark.parametrize("path", page.PAGES, ids=lambda path: path.name)
def test_the_pages_have_the_place(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.count(page.BEGIN) == text.count(page.END) == 1
    assert text.index(page.BEGIN) < text.index(page.END)
