//! The daemon as a whole: from a configuration to its end.

use std::io;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::budget::Budget;
use crate::config::Config;
use crate::drain::drain;
use crate::keeper;
use crate::limits::{self, Places};
use crate::links::Links;
use crate::listener::Listener;
use crate::log::Hits;
use crate::totals;
use crate::watch::Watch;

/// What all tasks share.
#[derive(Debug)]
pub struct App {
    /// What was asked for.
    pub config: Config,
    /// The links that are up.
    pub links: Links,
    /// Room for clients.
    pub places: Places,
    /// What clients may make the program hold.
    pub budget: Arc<Budget>,
    /// Cancelled when the program begins to end: who is there may stay for a
    /// while, nobody new comes.
    pub draining: CancellationToken,
    /// Cancelled when the program ends.
    pub stop: CancellationToken,
    /// Who watches the clients' sockets.
    pub watches: Box<[Arc<Watch>]>,
    /// Clients that were refused.
    pub refusals: Hits,
}

/// Why the daemon could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address could not be listened on.
    #[error("cannot listen on {address} service={service}: {error}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Its service.
        service: String,
        /// What the system said.
        error: io::Error,
    },
    /// Signals could not be caught.
    #[error("cannot catch signals: {0}")]
    Signals(io::Error),
    /// A task that runs for ever did not.
    #[error("{0} failed")]
    Task(&'static str),
    /// The threads could not be started.
    #[error("cannot start: {0}")]
    Start(io::Error),
}

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// It could not begin to run, or not go on.
pub fn run(config: Config) -> Result<(), RunError> {
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = config.workers {
        threads.worker_threads(workers.as_usize());
    }
    let threads = threads.enable_all().build().map_err(RunError::Start)?;
    let ended = threads.block_on(serve(config));
    // What still runs is a look-up of a name, at most.
    threads.shutdown_background();
    ended
}

async fn serve(config: Config) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let user_1 = signal(SignalKind::user_defined1()).map_err(RunError::Signals)?;
    let app = Arc::new(App::new(config).map_err(RunError::Start)?);
    let listeners = bind_all(&app.config)?;

    let mut watching = JoinSet::new();
    for watch in &app.watches {
        watching.spawn(Arc::clone(watch).run());
    }
    let mut accepting = JoinSet::new();
    for listener in listeners {
        listener.announce();
        accepting.spawn(listener.run(Arc::clone(&app)));
    }
    let _status = AbortOnDropHandle::new(tokio::spawn(status_on(user_1, Arc::clone(&app))));
    let mut links = JoinSet::new();
    for number in 1..=app.config.all_links() {
        links.spawn(keeper::keep(Arc::clone(&app), number));
    }

    let signal = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        Some(_) = links.join_next() => return Err(RunError::Task("the keeper of a link")),
        Some(_) = accepting.join_next() => return Err(RunError::Task("a listener")),
        Some(_) = watching.join_next() => return Err(RunError::Task("a watch")),
    };
    info!(
        "{signal}: {} clients may stay for {}",
        app.places.taken(),
        app.config.drain_time
    );
    accepting.shutdown().await;
    let again = tokio::select! {
        () = drain(&app, &mut links) => None,
        _ = terminate.recv() => Some("SIGTERM"),
        _ = interrupt.recv() => Some("SIGINT"),
    };
    match again {
        None => info!("ended"),
        Some(signal) => info!("{signal} again: ended with {} clients", app.places.taken()),
    }
    Ok(())
}

/// How many share the clients: one for each thread that could look at them.
fn watches() -> usize {
    Handle::current().metrics().num_workers()
}

/// Logs what there is at each signal.
async fn status_on(mut signal: Signal, app: Arc<App>) {
    while signal.recv().await.is_some() {
        totals::log(&app);
    }
}

fn bind_all(config: &Config) -> Result<Vec<Listener>, RunError> {
    let bind = |listener: &crate::config::Listener| {
        Listener::bind(listener).map_err(|error| RunError::Listen {
            address: listener.listen.get_ref().0,
            service: listener.service.to_string(),
            error,
        })
    };
    config.listeners.iter().map(bind).collect()
}

impl App {
    /// How long connections may go on when the program begins to end: whole
    /// seconds, rounded up.
    pub fn drain_seconds(&self) -> u32 {
        self.config.drain_time.get().as_secs_f64().ceil() as u32
    }

    fn new(config: Config) -> io::Result<Self> {
        let open_files = limits::raise_open_files();
        let clients = limits::max_clients(&config, open_files);
        if let Some(wanted) = config.max_clients.filter(|wanted| wanted.get() > clients) {
            let wanted = wanted.get();
            warn!(
                "max_clients={wanted} does not fit into {open_files} open files: {clients} are held at most"
            );
        }
        let draining = CancellationToken::new();
        let close_timeout = config.close_timeout.get();
        let watches = (0..watches()).map(|_| Watch::new(close_timeout).map(Arc::new));
        Ok(Self {
            watches: watches.collect::<io::Result<_>>()?,
            links: Links::new(&config, draining.clone()),
            places: Places::new(clients),
            budget: Arc::new(Budget::new(config.max_buffered.get())),
            draining,
            stop: CancellationToken::new(),
            refusals: Hits::new(),
            config,
        })
    }
}
