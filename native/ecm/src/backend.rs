//! One ejabberd node: where it is, and how it is dialled.

use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use crate::config::HOUR;
use crate::credentials::Credentials;
use crate::values::{BackendAddress, Period};
use crate::wrong::Wrong;

/// Where one ejabberd node is, and how it is dialled.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Where it listens for links.
    pub address: Spanned<BackendAddress>,
    /// The longest a dial, with the handshake, may take.
    #[serde(default = "Period::millis::<5000>")]
    pub connect_timeout: Period<100, HOUR>,
    /// The first pause before a link is dialled again.
    #[serde(default = "Period::millis::<100>")]
    pub reconnect_min: Period<1, HOUR>,
    /// The longest pause before a link is dialled again.
    #[serde(default = "Period::millis::<10_000>")]
    pub reconnect_max: Period<1, HOUR>,
    /// Where the secret is that is shared with it.
    pub secret_file: Option<PathBuf>,
    /// How its links are protected, where they are.
    pub tls: Option<Tls>,
}

/// How the links to a node are protected.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The authorities that its certificate may come from.
    pub ca_file: PathBuf,
    /// Our own certificate, where it wants to see one.
    pub cert_file: Option<PathBuf>,
    /// The key of our own certificate.
    pub key_file: Option<PathBuf>,
    /// The name that must stand in its certificate; `None`: that of its
    /// address.
    pub server_name: Option<String>,
}

impl Backend {
    /// Where it listens for links.
    pub fn address(&self) -> &BackendAddress {
        self.address.get_ref()
    }

    /// What no single value shows, and what is in the files.
    pub fn check(&self) -> Result<(), Wrong> {
        if self.reconnect_min.get() > self.reconnect_max.get() {
            let message = format!(
                "{} is more than reconnect_max, {}",
                self.reconnect_min, self.reconnect_max
            );
            return Err(Wrong::somewhere("reconnect_min", message));
        }
        if self.tls.is_some() && matches!(self.address(), BackendAddress::Unix(_)) {
            let message = "a Unix socket has no TLS: its permissions say who may dial";
            return Err(Wrong::somewhere("tls", message));
        }
        Credentials::read(self).map_err(|(key, why)| Wrong::somewhere(key, why.to_string()))?;
        Ok(())
    }
}
