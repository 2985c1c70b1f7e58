//! Keeps one link up: has it dialled, runs it, and begins again.
//!
//! ```text
//!          ┌─────────┐   up   ┌────┐ its transport is gone ┌────────┐
//!   ──────►│ no link ├───────►│ up ├──────────────────────►│ parked │
//!          └─────────┘        └─┬──┘◄──────────────────────┴──┬─────┘
//!               ▲               │ over        resumed         │ lost
//!               └───────────────┴─────────────────────────────┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use megaphone_proto::control::{CloseReason, Control, ErrorCode};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::app::App;
use crate::backoff::Backoff;
use crate::connection::Ending;
use crate::dial::NotUp;
use crate::greet::{Greeted, dial};
use crate::link::Link;
use crate::parked::{Given, Parked, end_all};
use crate::reader::LinkEnd;
use crate::session::{Outcome, Session, Transport, run, say_last};

/// A link that stood so long had nothing wrong with it: the next pause is
/// the shortest again.
const STOOD: Duration = Duration::from_secs(10);

/// How long a node that said that it ends is left alone, at least. It may
/// still answer for a moment, and a link to it would not live longer.
const SHUTDOWN_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause between the dials for a parked link, unless
/// `reconnect_min` is longer: clients wait for each of them.
const PARKED_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Keeps link `number` up until the program ends.
pub async fn keep(app: Arc<App>, number: usize) {
    let mut keeper = Keeper::new(&app, number);
    let mut pause = Duration::ZERO;
    loop {
        let dialled = async {
            sleep(pause).await;
            dial(&app, number, keeper.parked.as_deref()).await
        };
        tokio::select! {
            biased;
            () = ending(&app) => return keeper.leave(),
            why = given_up(keeper.parked.as_deref()) => pause = keeper.lose(why),
            dialled = dialled => match keeper.run(dialled).await {
                Some(next) => pause = next,
                None => return,
            }
        }
    }
}

/// Waits until no link is wanted any more.
async fn ending(app: &App) {
    tokio::select! {
        () = app.draining.cancelled() => {}
        () = app.stop.cancelled() => {}
    }
}

/// Waits until there is no use in a parked link, if there is one.
async fn given_up(parked: Option<&Parked>) -> Given {
    match parked {
        Some(parked) => parked.given_up().await,
        None => std::future::pending().await,
    }
}

struct Keeper<'a> {
    app: &'a App,
    number: usize,
    backoff: Backoff,
    parked: Option<Box<Parked>>,
}

impl<'a> Keeper<'a> {
    fn new(app: &'a App, number: usize) -> Self {
        let backend = app.config.backend_of(number);
        Self {
            app,
            number,
            backoff: Backoff::new(backend.reconnect_min.get(), backend.reconnect_max.get()),
            parked: None,
        }
    }

    /// Runs what was dialled to its end. Returns how long to wait before the
    /// next dial; `None`: this program ends.
    async fn run(&mut self, dialled: Result<Greeted, NotUp>) -> Option<Duration> {
        let number = self.number;
        let begun = match dialled {
            Ok(greeted) => self.begin(greeted).await,
            Err(error) => Err(error.to_string()),
        };
        let (session, transport) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                let pause = self.pause();
                let millis = pause.as_millis();
                warn!("link {number} cannot come up: {error}; next try in {millis} ms");
                return Some(pause);
            }
        };
        let (link, since) = (Arc::clone(&session.link), Instant::now());
        let received = session.protocol.received();
        match run(self.app, session, transport).await {
            Outcome::Dropped(parked, end) => {
                // One that is cut again before anything came over it is not
                // dialled in a circle.
                let pause = if parked.received() > received {
                    self.backoff.reset();
                    Duration::ZERO
                } else {
                    self.pause()
                };
                let (clients, unacknowledged) = (link.load(), link.unacknowledged());
                let (seconds, millis) = (parked.timeout().as_secs(), pause.as_millis());
                warn!(
                    "link {number} parked: {end} clients={clients} unacknowledged={unacknowledged}; kept for {seconds} s, next try in {millis} ms"
                );
                self.parked = Some(parked);
                Some(pause)
            }
            Outcome::Over(end) => self.over(&link, &end, since.elapsed()),
        }
    }

    /// Makes a link of what was dialled: the parked one, or a fresh one in
    /// place of it. Where that fails returns why.
    async fn begin(&mut self, mut greeted: Greeted) -> Result<(Session, Transport), String> {
        let (app, number) = (self.app, self.number);
        if let Some(bytes) = greeted.handshake.resumed()
            && let Some(parked) = self.parked.take()
        {
            let after = parked.age().as_millis();
            return match parked.resume(bytes) {
                Ok((session, again)) => {
                    let address = app.config.backend_of(number).address();
                    let bytes: usize = again.iter().map(Bytes::len).sum();
                    app.links.changed();
                    info!("link {number} resumed to {address} again={bytes} after={after}");
                    greeted.transport.again = again;
                    Ok((session, greeted.transport))
                }
                Err(parked) => {
                    self.parked = Some(parked);
                    let why = Given::Apart(bytes);
                    self.lose(why);
                    let text = why.to_string();
                    let code = ErrorCode::ProtocolError;
                    let error = Control::Error { code, text };
                    say_last(greeted.transport.output, &error).await;
                    Err(why.to_string())
                }
            };
        }
        self.lose(Given::Unknown);
        let (session, transport, sentence) = greeted
            .begin(app, number)
            .map_err(|error| NotUp::from(error).to_string())?;
        app.links.add(Arc::clone(&session.link));
        info!("{sentence}");
        Ok((session, transport))
    }

    /// A link is over. Returns as [`Keeper::run`].
    fn over(&mut self, link: &Link, end: &LinkEnd, stood: Duration) -> Option<Duration> {
        let (number, app) = (self.number, self.app);
        let (reason, left_alone) = if link.is_leaving() {
            (CloseReason::Shutdown, SHUTDOWN_PAUSE)
        } else {
            (CloseReason::LinkLost, Duration::ZERO)
        };
        self.end(link, Ending::Reset(reason));
        let counters = link.counters();
        let drained = matches!(end, LinkEnd::Drained) && app.draining.is_cancelled();
        if drained || matches!(end, LinkEnd::Stopped) {
            info!("link {number} closed {counters}");
            return None;
        }
        if stood >= STOOD {
            self.backoff.reset();
        }
        let pause = self.pause().max(link.retry_after()).max(left_alone);
        let millis = pause.as_millis();
        warn!("link {number} ended: {end} {counters}; next try in {millis} ms");
        Some(pause)
    }

    fn pause(&mut self) -> Duration {
        let pause = self.backoff.pause(getrandom::u64().unwrap_or(0));
        match self.parked {
            Some(_) => pause.min(PARKED_PAUSE_MAX.max(self.backoff.min())),
            None => pause,
        }
    }

    /// Does not wait for the parked link any more, if there is one. Returns
    /// how long to wait before the next dial.
    fn lose(&mut self, why: Given) -> Duration {
        let Some(parked) = self.parked.take() else {
            return Duration::ZERO;
        };
        let link = parked.link();
        self.end(link, Ending::Reset(CloseReason::LinkLost));
        let (number, counters) = (self.number, link.counters());
        warn!("link {number} lost: {why} {counters}");
        link.retry_after()
    }

    /// The program ends.
    fn leave(mut self) {
        if let Some(parked) = self.parked.take() {
            let link = parked.link();
            self.end(link, Ending::Close(CloseReason::Shutdown));
            info!("link {} closed {}", self.number, link.counters());
        }
    }

    fn end(&self, link: &Link, ending: Ending) {
        end_all(link, ending, self.app.stop.clone());
        self.app.links.remove(link);
    }
}
