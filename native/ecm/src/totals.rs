//! What the log says at SIGUSR1: a line for each link, and one for all.

use tracing::info;

use crate::app::App;
use crate::log;

/// Logs what there is.
pub fn log(app: &App) {
    let mut links = app.links.all();
    links.sort_by_key(|link| link.number());
    for link in &links {
        info!("link {} {}", link.number(), link.status());
    }
    let (up, wanted) = (
        links.iter().filter(|link| !link.is_parked()).count(),
        app.config.all_links(),
    );
    let (places, waiting, budget) = (app.places.limit(), app.links.limit_waiting(), &app.budget);
    let (counters, refused) = (app.links.counters(), app.refusals.count());
    let (too_fast, lines) = (app.links.too_fast(), log::dropped_lines());
    info!(
        "status links={up}/{wanted} {counters} refused={refused} {places} {waiting} {budget} open_rate_hits={too_fast} log_lines_dropped={lines}"
    );
}
