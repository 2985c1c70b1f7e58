//! Connections that are open and do nothing.

use std::io;
use std::time::{Duration, Instant};

use super::drive::open_all;
use super::pool::{News, Pool};
use super::url::Url;
use super::{Args, Idle};
use crate::fleet::Errors;
use crate::generator::{resolve, say};

/// The longest wait for something to happen.
const TURN: Duration = Duration::from_millis(50);

/// Opens connections, reports, and holds them until standard input ends. Nothing runs meanwhile.
/// The error is for a person.
pub fn run(args: &Args, url: &Url, connections: usize) -> Result<(), String> {
    let address = resolve(&url.address)?;
    let begin = Instant::now();
    let text = |error: io::Error| error.to_string();
    let mut pool = Pool::new(address, url.request(), connections).map_err(text)?;
    open_all(&mut pool, connections, args.patience)?;
    let mut errors = Errors::new();
    // Who was taken may have been turned away since.
    let mut news = |_: &mut Pool, _, news| {
        if let News::Failed { kind, .. } = news {
            *errors.entry(kind).or_default() += 1;
        }
    };
    pool.turn(Duration::ZERO, &mut news).map_err(text)?;
    if args.warm {
        warm(&mut pool, connections, args.patience, &mut errors).map_err(text)?;
    }
    let held = (0..connections).filter(|number| pool.is_free(*number));
    let idle = Idle {
        held: held.count(),
        seconds: begin.elapsed().as_secs_f64(),
        errors,
    };
    say(&idle, args.json)?;
    io::copy(&mut io::stdin(), &mut io::sink()).map_err(text)?;
    let mut ended = 0;
    let mut news =
        |_: &mut Pool, _, news| ended += usize::from(matches!(news, News::Failed { .. }));
    pool.turn(Duration::ZERO, &mut news).map_err(text)?;
    match (idle.held, ended) {
        (held, 0) if held == connections => Ok(()),
        (held, ended) => Err(format!(
            "{held} of {connections} connections were held, and {ended} of them or more ended meanwhile"
        )),
    }
}

/// Has one request answered on each connection.
fn warm(
    pool: &mut Pool,
    connections: usize,
    patience: Duration,
    errors: &mut Errors,
) -> io::Result<()> {
    let give_up = Instant::now() + patience;
    let mut left = 0;
    for number in 0..connections {
        left += usize::from(pool.is_free(number));
        pool.send(number, Instant::now());
    }
    while left > 0 && Instant::now() < give_up {
        let mut news = |_: &mut Pool, _, news| match news {
            News::Answered {
                status: 200..300, ..
            } => left -= 1,
            News::Answered { status, .. } => {
                left -= 1;
                *errors.entry(format!("status {status}")).or_default() += 1;
            }
            News::Failed { due, kind } => {
                left -= usize::from(due.is_some());
                *errors.entry(kind).or_default() += 1;
            }
            News::Opened => {}
        };
        pool.turn(TURN, &mut news)?;
    }
    if left > 0 {
        errors.insert("unanswered".into(), left as u64);
    }
    Ok(())
}
