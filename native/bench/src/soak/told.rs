//! What is told of the rounds.

use super::round::Round;
use super::verdict::{SERIES, Series};
use crate::figure::{count, number};

/// One line about a round. The first `warm` are not judged; the last of them draws the line.
pub fn round(round: &Round, warm: usize) -> String {
    let name = match round.number {
        number if number < warm => "warm".to_owned(),
        number if number == warm => "the line".to_owned(),
        number => format!("round {}", number - warm),
    };
    let mut well = match round.faults.is_empty() {
        true => "all whole, once and in order".to_owned(),
        false => format!("FOUND: {}", round.faults.join("; ")),
    };
    if round.late > 0 {
        well += &format!(
            " ({} farewells over BOSH that ejabberd had laid aside)",
            round.late
        );
    }
    format!(
        "{name}: {} logins, {} messages, {well}; at rest {} MB resident, {} MB of processes, {} kB in the NIF, {} processes",
        count(round.logins),
        count(round.sent),
        number(round.rest.node as f64 / 1e6),
        number(round.rest.heaps as f64 / 1e6),
        number(round.rest.nif as f64 / 1e3),
        count(round.rest.processes),
    )
}

/// Prints the verdicts; see [`round`]. Says whether anything was found.
pub fn tell(rounds: &[Round], warm: usize) -> bool {
    let judged = rounds.get(warm..).unwrap_or_default();
    let from_line = rounds.get(warm.saturating_sub(1)..).unwrap_or_default();
    let logins: u64 = judged.iter().map(|round| round.logins).sum();
    let messages: u64 = judged.iter().map(|round| round.sent).sum();
    let mut found = rounds.iter().any(|round| !round.faults.is_empty());
    println!(
        "\n{} logins and {} messages after the line was drawn\n",
        count(logins),
        count(messages)
    );
    println!(
        "{:20} {:>12} {:>12} {:>12} {:>14}  {:>24}  verdict",
        "", "at rest: then", "now", "difference", "bytes a login", "while chatting: then, now"
    );
    for series in SERIES {
        found |= !line(&series, from_line, logins);
    }
    found
}

/// Whether the series is level.
fn line(series: &Series, rounds: &[Round], logins: u64) -> bool {
    let verdict = series.judge(rounds);
    let then = verdict.rest.first().copied().unwrap_or(0.0);
    let now = verdict.rest.last().copied().unwrap_or(0.0);
    let shown = |value: f64| match series.bytes {
        true => format!("{} kB", number((value / 1e3).round())),
        false => number(value),
    };
    let each = match series.bytes {
        true => format!("{:.1}", (now - then) / logins.max(1) as f64),
        false => "–".to_owned(),
    };
    let level = verdict.level && verdict.level_chatting;
    let said = match (verdict.level, verdict.level_chatting) {
        (true, true) => "level",
        (false, _) => "NOT LEVEL",
        (true, false) => "NOT LEVEL while chatting",
    };
    println!(
        "{:20} {:>13} {:>12} {:>12} {:>14}  {:>24}  {said}",
        series.name,
        shown(then),
        shown(now),
        shown(now - then),
        each,
        verdict.chatting.map(shown).join(", "),
    );
    level
}
