//! One connection that bytes move over.

use megaphone_proto::conn::{Conn, ConnError};
use megaphone_proto::credit::NO_GROWTH;

use crate::bulk::PERIOD;

/// One connection that bytes move over.
#[derive(Debug)]
pub struct Flow {
    /// Its credit.
    pub conn: Conn,
    /// Bytes that have moved, the first that says the direction left out.
    pub bytes: u64,
    /// It waits for its turn to send.
    pub queued: bool,
    /// What the service has said of its count.
    count: Vec<u8>,
}

impl Flow {
    /// One that has sent the byte which says the direction, and is `queued` to send more.
    pub fn begun(mut conn: Conn, queued: bool) -> Self {
        conn.take_credit(1);
        Self {
            conn,
            bytes: 0,
            queued,
            count: Vec::new(),
        }
    }

    /// Whether these are the bytes that are due: both ends are looked at.
    pub fn is_next(&self, bytes: &[u8]) -> bool {
        let due = |place: u64| (place % PERIOD) as u8;
        let last = (self.bytes + bytes.len() as u64).saturating_sub(1);
        bytes.first() == Some(&due(self.bytes)) && bytes.last() == Some(&due(last))
    }

    /// Takes bytes that came: a count where bytes go `up`. Returns what is to be granted. The error is that the node
    /// sent more than it may.
    pub fn take(&mut self, bytes: &[u8], up: bool) -> Result<Option<u32>, ConnError> {
        self.conn.receive(bytes.len() as u32)?;
        match up {
            true => self.count.extend_from_slice(bytes),
            false => self.bytes += bytes.len() as u64,
        }
        Ok(self.conn.release(bytes.len() as u32, &NO_GROWTH))
    }

    /// Whether the service has counted all that was sent.
    pub fn is_counted(&self) -> bool {
        self.count == self.bytes.to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use megaphone_proto::credit::{RecvWindow, SendCredit};

    use super::*;

    fn flow() -> Flow {
        Flow::begun(
            Conn::new(SendCredit::new(100), RecvWindow::new(1_000)),
            true,
        )
    }

    #[test]
    fn a_lost_byte_shows() {
        let mut flow = flow();
        let bytes: Vec<u8> = (0..=250).chain(0..50).collect();
        assert!(flow.is_next(&bytes[..200]));
        flow.take(&bytes[..200], false).unwrap();
        assert!(flow.is_next(&bytes[200..]));
        assert!(!flow.is_next(&bytes[201..]));
        assert!(flow.take(&[0; 900], false).is_err(), "more than the window");
    }

    #[test]
    fn all_is_counted_when_the_count_is_that_of_the_bytes() {
        let mut flow = flow();
        assert_eq!(flow.conn.credit(), 99);
        flow.bytes = 1_234;
        flow.take(b"12", true).unwrap();
        assert!(!flow.is_counted());
        flow.take(b"34", true).unwrap();
        assert!(flow.is_counted());
    }
}
