//! How many clients may be held, and the open files that takes.

use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::config::Config;
use crate::log::Hits;
use crate::tally::Limit;

/// Open files that are kept for all but clients, links and listeners: the
/// standard streams, the event queue, name look-ups, libraries.
const FILES_RESERVE: u64 = 64;

/// What is taken for an unlimited number of open files: Linux's `fs.nr_open`
/// unless someone raised it.
const FILES_UNLIMITED: u64 = 1_048_576;

/// Raises the limit of open files as far as it may go without a privilege
/// and returns it. See setrlimit(2), `RLIMIT_NOFILE`.
pub fn raise_open_files() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
    let limit = if raised.is_ok() { maximum } else { current };
    limit.unwrap_or(FILES_UNLIMITED)
}

/// How many clients `open_files` has room for beside what `config` needs.
pub fn clients_that_fit(config: &Config, open_files: u64) -> u64 {
    // A listener also holds the client that waits for a place.
    let needed = FILES_RESERVE + config.all_links() as u64 + 2 * config.listeners.len() as u64;
    open_files.saturating_sub(needed).max(1)
}

/// How many clients are to be held: what `config` says, or what fits.
pub fn max_clients(config: &Config, open_files: u64) -> u64 {
    let fit = clients_that_fit(config, open_files);
    config.max_clients.map_or(fit, |n| n.get().min(fit))
}

/// A place for each client that may be there at a time.
#[derive(Debug, Clone)]
pub struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    free: Semaphore,
    all: u32,
    full: Hits,
}

/// A client's place; dropped, it is free for the next.
#[derive(Debug)]
pub struct Place(Places);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.free.add_permits(1);
    }
}

impl Places {
    /// Room for `clients`.
    pub fn new(clients: u64) -> Self {
        let all = u32::try_from(clients).unwrap_or(u32::MAX);
        Self(Arc::new(Inner {
            free: Semaphore::new(all as usize),
            all,
            full: Hits::new(),
        }))
    }

    /// A place if one is free. If not, that is counted.
    pub fn try_take(&self) -> Option<Place> {
        match self.0.free.try_acquire() {
            Ok(held) => Some(self.place(held)),
            Err(_) => {
                self.0.full.hit();
                None
            }
        }
    }

    /// The next place that is free.
    pub async fn take(&self) -> Place {
        let held = self.0.free.acquire().await;
        self.place(held.expect("the places are never closed"))
    }

    /// A place for who holds `permit`, which takes less memory.
    fn place(&self, permit: SemaphorePermit<'_>) -> Place {
        permit.forget();
        Place(self.clone())
    }

    /// How many clients there may be.
    pub fn all(&self) -> u32 {
        self.0.all
    }

    /// How many clients there are.
    pub fn taken(&self) -> usize {
        (self.0.all as usize).saturating_sub(self.0.free.available_permits())
    }

    /// As status lines show it.
    pub fn limit(&self) -> Limit {
        Limit {
            name: "max_clients",
            now: self.taken(),
            max: self.0.all as usize,
            hits: self.0.full.count(),
        }
    }

    /// Waits until there is no client.
    pub async fn all_free(&self) {
        let _ = self.0.free.acquire_many(self.0.all).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(line: &str) -> Config {
        let text = format!(
            "{line}\nlinks = 4\n[backend]\naddress = \"unix:/x\"\n[[listeners]]\nlisten = \"127.0.0.1:0\"\nservice = \"a\"\n"
        );
        Config::parse("-", &text).unwrap()
    }

    #[test]
    fn clients_are_what_open_files_leave() {
        assert_eq!(max_clients(&config(""), 1024), 1024 - 64 - 4 - 2);
        assert_eq!(max_clients(&config("max_clients = 10"), 1024), 10);
        assert_eq!(max_clients(&config("max_clients = 5000"), 1024), 954);
        assert_eq!(max_clients(&config(""), 10), 1);
    }

    #[test]
    fn a_place_is_free_again_when_it_is_dropped() {
        let places = Places::new(1);
        let place = places.try_take().unwrap();
        assert!(places.try_take().is_none());
        assert_eq!(places.taken(), 1);
        drop(place);
        assert!(places.try_take().is_some());
    }
}
