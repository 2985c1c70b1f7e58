//! The command line.

use clap::{Parser, Subcommand};

use crate::{bulk, http, link, stand_in, users};

const AFTER_HELP: &str = "\
Each command has a --help of its own, with units, defaults and examples. To begin with:

  megaphone-load users http://localhost:5280/bosh --domain anon.localhost --users 100 --chatter 50

logs 100 anonymous users in over BOSH, has random pairs of them exchange 50 messages a second for
ten seconds, checks that each message arrives once, whole and in order, and reports how long it
took. Load only servers that are yours to load.";

/// Real XMPP users by the thousand, against any XMPP server; and what else a server is measured
/// with: HTTP requests, bulk bytes, a megaphone listener's links.
#[derive(Debug, Parser)]
#[command(name = "megaphone-load", version, after_help = AFTER_HELP, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Log XMPP users in, hold them, have them chatter
    Users(Box<users::Args>),
    /// Send HTTP requests over kept-alive connections
    Http(http::Args),
    /// Move bytes as fast as they go
    Bulk(bulk::Args),
    /// Open virtual connections on a megaphone listener's links, as an edge would
    Link(link::Args),
    /// Be a small server, to see what generator and kernel cost, or to lose messages on purpose
    StandIn(stand_in::Args),
    /// Hold some of the users (started by `users`)
    #[command(hide = true)]
    Worker,
}
