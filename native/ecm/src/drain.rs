//! How the program ends: clients that are there are ended one after the
//! other, by ejabberd, which has the right words for them, as long as it does.
//!
//! ```text
//!   signal ──── drain_time ────► who is left ──── LEFT_OVER ────► stop ── shutdown_timeout ──► end
//!   goaway on the links;         is closed by us,                 flush
//!   version 1: closed by us,     spread
//!   spread
//! ```

use std::sync::Arc;
use std::time::Duration;

use megaphone_proto::control::CloseReason;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::app::App;
use crate::link::Link;

/// Over how long those are closed, at most, that ejabberd did not end in
/// time: they come back at once, and not all in one blow.
const LEFT_OVER: Duration = Duration::from_secs(1);

/// What each of them adds to that.
const LEFT_OVER_EACH: Duration = Duration::from_millis(1);

/// The pause between two times at which some are closed.
const STEP: Duration = Duration::from_millis(20);

/// Ends all clients and then all links, whose `keepers` end with them.
pub async fn drain(app: &App, keepers: &mut JoinSet<()>) {
    app.draining.cancel();
    tokio::select! {
        () = gone(app, keepers) => return,
        () = wait(app) => {}
    }
    let (left, time) = (app.places.taken(), app.config.drain_time);
    if left > 0 {
        warn!("drain_time={time} is over: closing the {left} clients that are left");
    }
    let over = LEFT_OVER_EACH.saturating_mul(u32::try_from(left).unwrap_or(u32::MAX));
    tokio::select! {
        () = gone(app, keepers) => return,
        () = close(app.links.all(), over.min(LEFT_OVER)) => {}
    }
    app.stop.cancel();
    let allowed = app.config.shutdown_timeout;
    if timeout(allowed.get(), gone(app, keepers)).await.is_err() {
        let (clients, links) = (app.places.taken(), keepers.len());
        warn!(
            "shutdown_timeout={allowed} is over with {clients} clients and {links} links not done"
        );
    }
}

/// Waits until no client and no link is left.
async fn gone(app: &App, keepers: &mut JoinSet<()>) {
    while keepers.join_next().await.is_some() {}
    app.places.all_free().await;
}

/// Waits for `drain_time`, and closes those in the meantime who are on links
/// of version 1: ejabberd cannot be told on them that it should.
async fn wait(app: &App) {
    let mut links = app.links.all();
    links.retain(|link| link.is_v1());
    let time = app.config.drain_time.get();
    tokio::join!(close(links, time), sleep(time));
}

/// Closes all connections on `links`, spread evenly `over` a while.
async fn close(links: Vec<Arc<Link>>, over: Duration) {
    let open = || links.iter().map(|link| link.load()).sum::<usize>();
    let (all, steps) = (
        open(),
        (over.as_millis() / STEP.as_millis()).max(1) as usize,
    );
    for left in (0..steps).rev() {
        // Some leave by themselves meanwhile.
        let may_stay = (all * left).div_ceil(steps);
        let mut some = open().saturating_sub(may_stay);
        for link in &links {
            some -= link.close_some(some, CloseReason::Shutdown);
        }
        sleep(STEP).await;
    }
}
