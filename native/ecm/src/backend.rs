//! One ejabberd node: where it is, and how it is dialled.

use serde::Deserialize;
use toml::Spanned;

use crate::config::{HOUR, Wrong};
use crate::values::{BackendAddress, Period};

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
}

impl Backend {
    /// Where it listens for links.
    pub fn address(&self) -> &BackendAddress {
        self.address.get_ref()
    }

    /// What no single value shows.
    pub fn check(&self) -> Result<(), Wrong> {
        if self.reconnect_min.get() > self.reconnect_max.get() {
            let message = format!(
                "{} is more than reconnect_max, {}",
                self.reconnect_min, self.reconnect_max
            );
            return Err(Wrong::somewhere("reconnect_min", message));
        }
        Ok(())
    }
}
