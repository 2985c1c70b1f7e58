//! Keeps one link up: has it dialled, runs it, and begins again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use megaphone_proto::control::{CloseReason, Control};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::app::App;
use crate::backoff::Backoff;
use crate::dial::Output;
use crate::greet::{Up, dial};
use crate::link::Link;
use crate::outbox::Gathered;
use crate::reader::{LinkEnd, last_words};

/// A link that stood so long had nothing wrong with it: the next pause is
/// the shortest again.
const STOOD: Duration = Duration::from_secs(10);

/// How long the last message of a broken link may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Heartbeat intervals without a byte after which a link is dead.
const MISSES_MAX: u32 = 3;

/// Keeps link `number` up until the program ends.
pub async fn keep(app: Arc<App>, number: usize) {
    let backend = app.config.backend_of(number);
    let mut backoff = Backoff::new(backend.reconnect_min.get(), backend.reconnect_max.get());
    loop {
        let dialled = tokio::select! {
            biased;
            () = app.stop.cancelled() => return,
            dialled = dial(&app, number) => dialled,
        };
        let (sentence, away) = match dialled {
            Ok(up) => {
                let (link, since) = (Arc::clone(&up.link), Instant::now());
                let end = run(&app, up).await;
                if let LinkEnd::Stopped = end {
                    info!("link {number} closed {}", link.summary());
                    return;
                }
                if since.elapsed() >= STOOD {
                    backoff.reset();
                }
                (
                    format!("link {number} ended: {end} {}", link.summary()),
                    link.retry_after(),
                )
            }
            Err(error) => (
                format!("link {number} cannot come up: {error}"),
                Duration::ZERO,
            ),
        };
        let pause = backoff.pause(getrandom::u64().unwrap_or(0)).max(away);
        warn!("{sentence}; next try in {} ms", pause.as_millis());
        tokio::select! {
            () = app.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Runs a link until it ends; then no client is on it any more.
async fn run(app: &App, up: Up) -> LinkEnd {
    let Up {
        link,
        mut reader,
        output,
        sentence,
    } = up;
    let hears_errors = reader.protocol().hears_errors();
    let read_link = Arc::clone(&link);
    let reading = tokio::spawn(async move { reader.run(&read_link).await });
    let mut reading = AbortOnDropHandle::new(reading);
    let mut writing = AbortOnDropHandle::new(tokio::spawn(write(output, Arc::clone(&link))));
    app.links.add(Arc::clone(&link));
    info!("{sentence}");
    let end = tokio::select! {
        biased;
        end = &mut reading => end.unwrap_or_else(|panic| LinkEnd::Read(panic.into())),
        end = &mut writing => LinkEnd::Write(end.unwrap_or_else(io::Error::from)),
        () = app.stop.cancelled() => LinkEnd::Stopped,
        () = link.drained() => LinkEnd::Drained,
        () = beat(&link, app.config.heartbeat.get()) => LinkEnd::Silent,
    };
    app.links.remove(&link);
    match end {
        LinkEnd::Stopped => {
            stop(&link);
            // Bounded by who waits for the end of the program. The link is
            // read on meanwhile: ejabberd must not be stuck in a write.
            let _ = writing.await;
        }
        LinkEnd::Write(_) => link.lose(),
        _ => {
            link.lose();
            link.outbox()
                .finish(last_words(&end, hears_errors).as_ref());
            let _ = timeout(LAST_WORDS, writing).await;
        }
    }
    end
}

/// Ends a link because the program does.
fn stop(link: &Link) {
    let goaway = Control::Goaway {
        reason: CloseReason::Shutdown,
        retry_after: None,
        within: None,
    };
    if !link.is_v1() {
        link.outbox().urgent(&goaway);
    }
    link.close_all();
    link.outbox().finish(None);
}

/// Writes what gathers in the outbox until it is finished and the stream
/// ended. Returns what ended it.
async fn write(mut output: Output, link: Arc<Link>) -> io::Error {
    let mut gathered = Gathered::default();
    while link.outbox().take(&mut gathered).await {
        let mut bytes = gathered.urgent.as_slice().chain(gathered.data.as_slice());
        if let Err(error) = output.write_all_buf(&mut bytes).await {
            return error;
        }
        gathered.clear();
    }
    match output.shutdown().await {
        Ok(()) => io::Error::other("all is written"),
        Err(error) => error,
    }
}

/// Asks in each interval whether the other end lives. Returns when it does
/// not. Version 1 has no way to ask.
async fn beat(link: &Link, every: Duration) {
    if link.is_v1() {
        return std::future::pending().await;
    }
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let (mut seen, mut misses, mut word) = (link.received(), 0, 0_u64);
    loop {
        ticks.tick().await;
        let received = link.received();
        misses = if received == seen { misses + 1 } else { 0 };
        if misses >= MISSES_MAX {
            return;
        }
        seen = received;
        word += 1;
        link.outbox().urgent(&Control::Ping {
            word: word.to_string(),
        });
    }
}
