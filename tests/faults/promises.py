"""The table of `docs/reliability.md`: in each entry a promise, what was asked of it, its figure, its tests.

A figure in counts or bytes is asserted by the tests that stand beside it. One in time or of the processor is
measured by the programs that `make reliability` runs, and comes out of their record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.faults.figures import Figure, asserted, both, by_axis, total, worst
from tests.faults.troubles import CLOSED, DRAINED, HALF_OPEN, LOST


@dataclass(frozen=True)
class Promise:
    """A row.

    Attributes:
        threat: what may befall.
        does: what ours does then.
        asked: the figure that shows it.
        figure: what it came to.
        tests: ``path::name`` below ``tests/``, or ``path::Class::name``, or a whole file.
    """

    threat: str
    does: str
    asked: str
    figure: Figure
    tests: tuple[str, ...]


PROMISES: Final = (
    Promise(
        "protocol violations",
        "fail with the exact close code: 1002 protocol, 1007 bad UTF-8, 1009 too big, 1003 and 1008 as the "
        "RFC says",
        "each rule of RFC 6455 §5–7 has a case, in both roles",
        asserted("a case for each rule"),
        (
            "conformance/test_framing.py",
            "conformance/test_fragmentation.py",
            "conformance/test_control.py",
            "conformance/test_close.py",
            "conformance/test_text.py",
            "conformance/test_framing.py::test_the_mask_bit_belongs_to_the_role",
        ),
    ),
    Promise(
        "oversized opening handshake",
        "a line of 8 KiB, 128 headers, 64 KiB in all; 414 or 431",
        "a 20 MB header is refused in linear time, < 50 ms of processor",
        by_axis("{:.1f} ms", "floods", "header", "cpu_ms"),
        (
            "integration/test_opening_limits.py::TestSizes"
            "::test_of_twenty_megabytes_no_more_is_looked_at_than_a_head_may_hold",
            "unit/aio/test_opening.py::TestHeadReader::test_limits_are_exact_however_it_arrives",
        ),
    ),
    Promise(
        "slow opening handshake",
        "`open_timeout` [10 s]",
        "closed on time; 500 of them do not slow others (p99 ≤ 2×)",
        by_axis("p99 {:.2f}×", "floods", "slow_openings", "ratio"),
        (
            "integration/test_opening_limits.py::TestSlowOnes::test_five_hundred_hold_up_nobody_else",
            "integration/test_opening_limits.py::TestSlowOnes"
            "::test_each_is_told_and_dropped_when_its_own_time_is_over",
        ),
    ),
    Promise(
        "lengths that lie",
        "top bit set: 1002; 2^63−1: 1009; nothing is allocated before data arrives",
        "both roles",
        asserted("both close codes, no allocation on a claim"),
        (
            "conformance/test_framing.py::test_the_top_bit_of_a_length",
            "conformance/test_limits.py::test_enormous_claims",
            "conformance/test_limits.py::test_5_2_nothing_is_allocated_on_a_claim",
            "faults/test_liars.py::test_a_server_that_lies_once_in_a_while",
            "faults/test_liars.py::test_a_client_that_lies_beside_an_honest_one",
        ),
    ),
    Promise(
        "message size",
        "`max_message_size` [16 MiB], exact, 1009",
        "limit − 1, limit, limit + 1",
        asserted("the three of them, one frame and fragments"),
        (
            "conformance/test_limits.py::test_one_frame",
            "conformance/test_limits.py::test_fragments",
            "integration/test_limits.py::TestMessageSize::test_the_limit_is_exact",
        ),
    ),
    Promise(
        "tiny and empty fragments",
        "one growing buffer, nothing kept for each fragment",
        "65,536 fragments: RSS ≤ 2× their bytes + 64 KiB; 300,000 empty ones: ≤ +16 MiB",
        asserted("both bounds"),
        (
            "conformance/test_limits.py::test_5_4_65_536_fragments_however_they_come",
            "conformance/test_limits.py::test_5_4_300_000_empty_fragments",
            "integration/test_floods.py::TestFragments::test_a_message_of_65_536_passes",
            "integration/test_floods.py::TestFragments::test_300_000_empty_ones_take_no_memory",
        ),
    ),
    Promise(
        "ping flood",
        "at most 64 pongs that the socket refused, then cut with 1008",
        "100,000 pings to a peer that does not read",
        asserted("cut at the 65th"),
        (
            "conformance/test_control.py::test_5_5_2_a_flood_of_100_000_is_cut_at_the_65th",
            "conformance/test_sockets.py::test_5_5_2_a_ping_flood_that_does_not_read_is_cut_with_1008",
            "integration/test_floods.py::test_100_000_pings_of_one_that_does_not_read_are_cut",
        ),
    ),
    Promise(
        "zip bomb",
        "inflating stops at the message limit, 1009",
        "1000:1: RSS ≤ +2× the limit",
        asserted("64 MiB from 64 KiB against a limit of 16 MiB, in one frame and in fragments"),
        (
            "conformance/test_deflate.py::test_8_a_bomb_ends_at_the_limit",
            "conformance/test_deflate.py::test_10_4_the_limit_is_of_the_message",
            "integration/test_compression.py::test_a_bomb_costs_its_connection_and_no_other",
        ),
    ),
    Promise(
        "half-open peer",
        "`ping_interval` [20 s] + `ping_timeout` [20 s]; every pending call fails then",
        "found within both + 1 s",
        worst("found {:.2f} s behind both, at most", "soak", "figures", HALF_OPEN),
        (
            "faults/test_links.py::test_a_half_open_peer_is_found_at_both_ends",
            "integration/test_liveness.py::TestPings"
            "::test_a_client_pings_a_quiet_peer_and_fails_one_that_does_not_answer",
            "faults/test_kills.py::TestServers::test_a_frozen_one_is_given_up_and_found_again",
        ),
    ),
    Promise(
        "slow reader",
        "over 1 MiB of unsent answers nothing more is dispatched; a peer that stalls for `write_timeout` "
        "[30 s] is cut",
        "stalled readers cost their caps (`max_queue_bytes` + 1 MiB + answers of running handlers); "
        "others' p99 ≤ 2×",
        both(
            by_axis("{:.0f} MiB", "floods", "stalled_readers", "grown_mib"),
            by_axis("cap {:.0f} MiB", "floods", "stalled_readers", "cap_mib"),
            by_axis("p99 {:.2f}×", "floods", "stalled_readers", "ratio"),
        ),
        (
            "integration/test_limits.py::TestUnsentAnswers::test_over_a_mebibyte_nothing_more_is_dispatched",
            "integration/test_limits.py::TestUnsentAnswers::test_others_are_served_meanwhile",
            "integration/test_floods.py::TestStalledReaders::test_100_of_them_cost_their_caps_and_no_more",
            "integration/test_liveness.py::TestPeersThatTakeNoBytes"
            "::test_a_server_cuts_one_after_write_timeout",
        ),
    ),
    Promise(
        "slow handler",
        "other messages of its connection go on, up to `max_concurrency`; then they wait, up to "
        "`max_queue_bytes`; then reading pauses",
        "no head-of-line blocking, no unbounded queue; handlers that are slow do not cost the link",
        asserted("counts of what runs, waits and is read"),
        (
            "integration/test_limits.py::TestMaxConcurrency::test_so_many_run_and_the_rest_waits_in_order",
            "integration/test_limits.py::TestMaxQueueBytes"
            "::test_beyond_it_reading_pauses_and_goes_on_when_there_is_room",
            "integration/test_limits.py::TestMaxQueueBytes"
            "::test_handlers_that_take_long_do_not_cost_the_link",
            "integration/test_handlers.py::TestWorkers::test_handlers_that_wait_for_each_other_do_not_block",
            "faults/test_links.py::test_both_sides_full_is_no_deadlock",
        ),
    ),
    Promise(
        "cancelled sends",
        "forgotten at once; a late response is dropped and counted",
        "1,000,000 cancels: 0 pending, no exception in the loop, RSS ≤ +5 MB",
        both(
            by_axis("{:.0f} pending", "floods", "cancels", "pending"),
            by_axis("{:.0f} exceptions", "floods", "cancels", "loop_exceptions"),
            by_axis("{:+.1f} MiB", "floods", "cancels", "kept_mib"),
        ),
        (
            "integration/test_client.py::TestCancellation::test_a_cancelled_call_is_forgotten_at_once",
            "integration/test_client.py::TestCancellation::test_thousands_of_cancelled_calls_cost_nothing_later",
        ),
    ),
    Promise(
        "duplicate ids in flight",
        "refused with an error before sending",
        "the first call still gets its own answer",
        asserted("its own answer"),
        (
            "integration/test_client.py::TestCorrelation"
            "::test_a_duplicate_id_in_flight_is_refused_before_it_leaves",
            "unit/core/test_answers.py::test_an_id_in_flight",
        ),
    ),
    Promise(
        "connection drop",
        "all pending calls end at once with *maybe delivered*; unsent ones are sent after the next dial",
        "no caller waits for its timeout",
        worst("40 of 40 callers told within {:.3f} s", "soak", "figures", LOST),
        (
            "faults/test_links.py::test_what_breaks_the_link_costs_the_calls_that_left",
            "faults/test_links.py::test_a_link_that_breaks_over_and_over_at_any_byte",
            "faults/test_kills.py::TestServers::test_kill_9_costs_the_calls_that_left",
            "integration/test_dial.py::TestReconnect::test_what_left_is_lost_and_what_did_not_is_sent_after",
            "interop/test_go_kills.py::test_a_go_server_is_killed_under_load",
        ),
    ),
    Promise(
        "reconnect",
        "full jitter, exponential, capped; fresh headers each time",
        "1,000 clients after a restart: ≤ 20 % of the dials in any 100 ms",
        both(
            by_axis("{:.1f} % due", "storm", "percent_due"),
            by_axis("{:.1f} % begun, in ten processes", "storm", "percent_begun_in_ten"),
        ),
        (
            "faults/test_reconnect.py::test_no_tenth_of_a_second_has_over_a_fifth_of_the_dials",
            "integration/test_dial.py::TestReconnect::test_it_dials_again_by_itself_with_fresh_headers",
        ),
    ),
    Promise(
        "retry",
        "only what was never sent, or what the caller marked idempotent, joined with the server's `dedupe`; "
        "a run that a crash cut is answered `outcome unknown`",
        "the handler runs ≤ 1 per id across 200 kill -9 restarts; no answer that belongs to another",
        both(
            total("{:,.0f} restarts", "restarts", "kills"),
            total("{:,.0f} messages", "restarts", "calls"),
            total("{:.0f} run twice", "restarts", "twice"),
            total("{:.0f} with another's answer, or another ending", "restarts", "wrong"),
        ),
        (
            "faults/test_restarts.py::test_a_message_runs_at_most_once_however_often_its_server_is_killed",
            "integration/test_dedupe.py::test_many_at_once_run_once_each",
            "integration/test_dedupe.py::test_a_guessed_id_gets_nobodys_answer",
            "integration/test_idempotent.py::test_it_is_sent_until_it_is_answered",
        ),
    ),
    Promise(
        "shutdown",
        "stop accepting, 503 for new ones, finish what was read within the drain's time, 1001",
        "0 tasks and 0 sockets left; nothing lost within the time",
        asserted("0 tasks, 0 sockets, every accepted message answered"),
        (
            "integration/test_drain.py::TestDrain::test_its_steps",
            "integration/test_drain.py::test_a_hundred_clients_and_a_drain_in_full_flight",
            "integration/test_doors.py::TestOrder::test_while_the_server_drains_nobody_comes_in",
        ),
    ),
    Promise(
        "rolling restart",
        "a worker that drains tells its peers to open their next connection elsewhere; what is under way "
        "ends on the old one, streams and requests of the server too. A plain peer cannot be told: see "
        "*connection drop*",
        "two workers replaced in turn under load: no call fails",
        asserted("every call and every stream answered"),
        ("faults/test_rolling.py::test_a_rolling_restart_of_two_workers_fails_no_call",),
    ),
    Promise(
        "lying peers on the extended wire",
        "cancels and credits of what is not there are ignored, parts without leave end their call, other "
        "calls go on; refusals that a peer does not read stop the reading at 1 MiB",
        "floods of each, of both ends, beside honest calls: none of those fails, nothing stays",
        asserted("0 handlers, 0 tasks left; at most 2 MiB kept for who does not read refusals"),
        (
            "faults/test_extended_liars.py::test_a_client_that_lies_beside_an_honest_one",
            "faults/test_extended_liars.py::test_a_server_that_lies_once_in_a_while",
            "integration/test_refusals.py::test_a_client_whose_requests_are_invalid",
            "integration/test_refusals.py::test_a_server_that_asks_who_takes_no_requests",
            "integration/test_streams.py::TestPace::test_whatever_a_peer_has_room_for_others_get_their_turn",
        ),
    ),
    Promise(
        "faults under streams, both directions, deadlines",
        "each call and each stream ends once; parts come in order; a handler whose caller gave up is stopped",
        "delay, drop, cut, slices, stall, reset, over CBOR and compressed JSON: no handler runs afterwards",
        asserted("one ending each, 0 handlers left, no more stopped than gave up"),
        (
            "faults/test_mixed.py::test_without_a_fault_each_kind_ends_as_it_must",
            "faults/test_mixed.py::test_what_is_only_slow_costs_nothing",
            "faults/test_mixed.py::test_what_breaks_the_link_ends_each_once",
            "faults/test_mixed.py::test_the_far_end_stops_when_nobody_waits",
        ),
    ),
    Promise(
        "close() and drain()",
        "never hang: `close_timeout` [10 s], then abort",
        "dead network, full buffers, TLS without close_notify, a handler that ignores cancellation",
        both(
            worst("close() {:.3f} s behind its time, at most", "soak", "figures", CLOSED),
            worst("drain() {:.3f} s", "soak", "figures", DRAINED),
        ),
        (
            "faults/test_endings.py::test_they_end_in_their_time",
            "faults/test_endings.py::test_a_handler_that_ignores_its_cancellation_is_not_waited_for",
            "faults/test_kills.py::TestServers::test_close_and_drain_do_not_wait_for_a_frozen_one",
        ),
    ),
    Promise(
        "no descriptors left",
        "accepting backs off, does not spin, recovers",
        "nofile = 64, 20 rounds",
        both(
            asserted("20 rounds"),
            by_axis(
                "{:.1f} % of a processor while there are none", "floods", "out_of_descriptors", "cpu_percent"
            ),
        ),
        (
            "integration/test_descriptors.py"
            "::test_a_server_out_of_descriptors_accepts_again_when_there_are_some",
            "integration/test_descriptors.py::TestClient::test_one_that_cannot_dial_says_so_and_can_later",
        ),
    ),
    Promise(
        "many pending calls",
        "each has its answer; nothing is kept",
        "100,000 in flight on one client",
        both(
            by_axis("{:,.0f} pending", "floods", "calls", "most_pending"),
            by_axis("{:+.1f} MiB kept", "floods", "calls", "kept_mib"),
        ),
        (
            "integration/test_floods.py::test_10_000_calls_of_a_client_all_end_and_leave_nothing",
            "integration/test_client.py::TestCorrelation::test_answers_in_any_order_find_their_calls",
        ),
    ),
    Promise(
        "one caller takes all places",
        "limits per address and per identity, off by default",
        "exact, and free again however a connection ends",
        asserted("exact counts"),
        (
            "integration/test_quotas.py::TestPlaces::test_one_is_free_again_however_its_connection_ends",
            "integration/test_quotas.py::TestPlaces::test_they_are_exact_when_all_come_at_once",
        ),
    ),
    Promise(
        "TLS",
        "≥ 1.2, hostname checked, no silent downgrade to ws",
        "expired, wrong host, unknown CA, TLS 1.1, plaintext peer: a clear error each",
        asserted("an error each, at once"),
        (
            "integration/tls/test_tls.py::TestCertificates::test_a_bad_one_is_a_dial_error_at_once",
            "integration/tls/test_tls.py::TestPeersWithoutACommonTLS::test_a_server_of_tls_1_1_alone",
            "integration/tls/test_tls.py::TestPeersWithoutACommonTLS"
            "::test_a_redirect_leads_nowhere_least_of_all_to_ws",
        ),
    ),
    Promise(
        "origin",
        "with a list: exact scheme, host and port, `null` refused, 403 before 101; without: cross-origin "
        "refused",
        "a table of cases",
        asserted("each case"),
        (
            "integration/test_doors.py::test_an_origin_passes_or_is_refused_before_anything_else_happens",
            "unit/aio/test_opening.py::TestOrigin::test_null_is_refused_though_listed",
        ),
    ),
    Promise(
        "PyO3",
        "no panic crosses; no lock is held while Python runs; a forked child raises, and never hangs",
        "10⁶ inputs, 0 panics",
        asserted("10⁶ inputs, 0 panics"),
        (
            "parity/test_no_panic.py::test_what_comes_over_a_connection",
            "parity/test_no_panic.py::test_what_is_read_as_json",
            "integration/test_processes_and_loops.py::TestFork::test_a_child_raises_and_disturbs_nobody",
        ),
    ),
    Promise(
        "other loops, threads, Ctrl-C",
        "a client or server belongs to one loop, and says so; an interrupt in a batch costs no other its "
        "answers",
        "no crash, no hang, nothing lost of others",
        asserted("each of them"),
        ("integration/test_processes_and_loops.py",),
    ),
    Promise(
        "logs",
        "peer text escaped and cut; payloads, signatures and tokens never",
        "a canary secret found 0 times in all logs of the tests",
        asserted("0 findings; one ends the run"),
        (
            "unit/test_logs.py::TestTheWatchOverTheTests::test_a_secret",
            "unit/test_logs.py::TestALine::test_what_is_obeyed_is_escaped",
        ),
    ),
    Promise(
        "nobody sees that it happened",
        "`stats()` counts every drop, late answer, refusal, reconnect, retry and duplicate",
        "each of them, once",
        asserted("exact counts"),
        ("integration/test_stats.py", "integration/test_client.py::test_stats_add_up"),
    ),
    Promise(
        "what was never closed",
        "`ResourceWarning` names it",
        "each of them",
        asserted("a warning each"),
        ("integration/test_unclosed.py",),
    ),
    Promise(
        "any of these, under load",
        "every call has exactly one ending within its time + 1 s, and its own answer; pending, tasks and "
        "descriptors return to their baseline",
        "the ledger balances; memory drifts ≤ 5 MB for each 10,000 calls",
        both(
            total("{:,.0f} calls", "soak", "calls"),
            total("{:.0f} entries that do not balance", "soak", "problems"),
            worst("the latest ending {:.3f} s behind its time", "soak", "latest"),
            worst("{:+.2f} MB at most", "soak", "drift"),
        ),
        (
            "faults/test_links.py",
            "faults/test_kills.py",
            "faults/test_liars.py",
            "faults/test_ledger.py",
        ),
    ),
)
