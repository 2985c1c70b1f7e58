//! Logins over WebSocket that stock ejabberd leaves hanging: counted, told and tried anew.
//!
//! `ejabberd_listener:start_connection/5` starts the connection's `ejabberd_http` and only then makes it the socket's
//! owner; `ejabberd_http:accept/1`, which could make it wait for that, does nothing. If the listener's process is held
//! up between the two, the WebSocket can be in active mode (`ejabberd_websocket:connect/2`) while the listener is the
//! owner still: the client's first frame goes to the listener, and stays in its mailbox. So it is in 23.01 and 24.12.

use megaphone_load::fleet::{Errors, Logins};
use megaphone_load::target::Transport;
use serde::{Deserialize, Serialize};

use crate::figure::count;
use crate::side::Side;

/// If one in so many hangs, that is more than the race explains.
const ONE_IN: u32 = 200;

/// So many never are: a quick run tries so few that two of them are more than one in [`ONE_IN`].
const FEW: u32 = 4;

/// What the generator says of a login that was not answered in time on a connection that stands.
const KIND: &str = "timed out: logging in";

/// Logins that could hang, and those that did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hung {
    /// Logins that were tried where they could hang.
    pub tried: u32,
    /// Those that did.
    pub failed: u32,
}

/// Whether logins can hang there.
pub fn possible(side: Side, transport: Transport) -> bool {
    side == Side::Stock && transport == Transport::WebSocket
}

/// Whether these failed by nothing else.
pub fn only(errors: &Errors) -> bool {
    errors.keys().all(|kind| kind == KIND)
}

impl Hung {
    /// Adds logins of which none failed by anything else.
    pub fn add(&mut self, logins: &Logins) {
        self.tried += logins.tried;
        self.failed += logins.tried - logins.logged_in;
    }

    /// What makes a part fail: more of them than the race explains.
    pub fn fault(&self) -> Option<String> {
        let too_many = self.failed > FEW && self.failed.saturating_mul(ONE_IN) >= self.tried;
        too_many.then(|| {
            format!(
                "WebSocket, stock: {} of {} logins hung",
                self.failed, self.tried
            )
        })
    }

    /// What the document says of them; nothing where there were none.
    pub fn text(&self) -> Option<String> {
        (self.failed > 0).then(|| {
            format!(
                "Of {} logins over WebSocket at stock in this part, {} hung until they were given up, and were tried \
                 anew: ejabberd's listener can lose a client's first frame while it hands the connection over (see \
                 [load.md](load.md#ejabberd-websocket-and-the-first-frame)). Where logins a second are shown, they count to the last that ended well.",
                count(self.tried),
                count(self.failed)
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logins(tried: u32, failed: u32) -> Logins {
        Logins {
            tried,
            logged_in: tried - failed,
            ..Logins::default()
        }
    }

    #[test]
    fn few_are_told_and_more_are_a_fault() {
        let mut hung = Hung::default();
        hung.add(&logins(60, 0));
        assert_eq!((hung.text(), hung.fault()), (None, None));
        hung.add(&logins(4, 4));
        assert!(
            hung.text()
                .is_some_and(|text| text.contains("Of 64 logins"))
        );
        assert_eq!(hung.fault(), None);
        hung.add(&logins(900, 1));
        assert!(hung.fault().is_some_and(|text| text.contains("5 of 964")));
        hung.add(&logins(100, 0));
        assert_eq!(hung.fault(), None);
    }

    #[test]
    fn nothing_else_is_excused() {
        let errors = |kind: &str| Errors::from([(kind.to_owned(), 1)]);
        assert!(only(&errors(KIND)));
        assert!(!only(&errors("connect: ECONNREFUSED")));
        assert!(possible(Side::Stock, Transport::WebSocket));
        assert!(!possible(Side::Megaphone, Transport::WebSocket));
        assert!(!possible(Side::Stock, Transport::C2s));
    }
}
