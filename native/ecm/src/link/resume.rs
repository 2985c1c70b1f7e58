//! What a link keeps to go on over another transport when it drops.

use std::collections::VecDeque;

use bytes::Bytes;
use megaphone_proto::LinkError;
use tracing::warn;

use super::Link;
use crate::sync::lock;

impl Link {
    /// Notes that `bytes` are handed to the transport.
    pub fn retain(&self, bytes: Bytes) {
        let mut retained = lock(&self.retained);
        let could = retained.may_resume();
        retained.push(bytes);
        if could && !retained.may_resume() {
            self.counters.count_overflow();
            let (number, max) = (self.number(), self.terms.resume_buffer);
            warn!(
                "link {number} cannot be resumed any more: ejabberd acknowledges too little, resume_buffer={max} is full"
            );
        }
    }

    /// ejabberd has so many bytes.
    ///
    /// # Errors
    /// As [`Retained::acknowledge`].
    pub fn acknowledged(&self, bytes: u64) -> Result<(), LinkError> {
        lock(&self.retained).acknowledge(bytes)
    }

    /// Bytes that ejabberd has not acknowledged, 0 where none are kept.
    pub fn unacknowledged(&self) -> usize {
        lock(&self.retained).bytes()
    }

    /// How many bytes are kept at most; 0 on a link that is never resumed.
    pub fn resume_buffer(&self) -> usize {
        self.terms.resume_buffer
    }

    /// Whether it could go on over another transport.
    pub fn may_resume(&self) -> bool {
        !self.is_leaving() && lock(&self.retained).may_resume()
    }

    /// The transport is gone.
    pub fn park(&self) {
        lock(&self.connections).parked = true;
    }

    /// Whether it has no transport.
    pub fn is_parked(&self) -> bool {
        lock(&self.connections).parked
    }

    /// There is another transport, and ejabberd has so many `bytes`. Returns
    /// what is to be written again, before all else; it counts as handed to
    /// the transport already, so that nothing of it is lost with that one.
    pub fn resume(&self, bytes: u64) -> Option<VecDeque<Bytes>> {
        let mut retained = lock(&self.retained);
        let again = retained.rewind(bytes)?;
        again.iter().for_each(|chunk| retained.push(chunk.clone()));
        drop(retained);
        self.pulse.begin_again();
        self.counters.count_resumed();
        lock(&self.connections).parked = false;
        Some(again)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use crate::link::tests::link;

    #[test]
    fn what_was_written_and_not_acknowledged_is_written_again_on_each_new_transport() {
        let link = link(1000);
        link.retain(Bytes::from("one "));
        link.retain(Bytes::from("two "));
        link.acknowledged(2).unwrap();
        assert_eq!(link.unacknowledged(), 6);
        for has in [2, 4, 7] {
            link.park();
            assert!(!link.accepts());
            let again = link.resume(has).unwrap();
            assert!(link.accepts());
            let again: Vec<u8> = again.into_iter().flatten().collect();
            assert_eq!(again, b"one two "[has as usize..]);
            assert_eq!(link.unacknowledged(), 8 - has as usize);
        }
        link.retain(Bytes::from("three"));
        assert_eq!(link.resume(8).unwrap(), ["three"]);
        assert!(link.resume(7).is_none());
        assert!(link.resume(14).is_none());
        assert!(link.acknowledged(14).is_err());
    }

    #[test]
    fn a_link_that_had_to_forget_or_that_ends_is_not_resumed() {
        let full = link(10);
        full.retain(Bytes::from_static(&[0; 10]));
        assert!(full.may_resume());
        full.retain(Bytes::from_static(&[0]));
        assert!(!full.may_resume());
        assert!(full.resume(0).is_none());
        full.retain(Bytes::from_static(&[0; 100]));
        assert_eq!(full.counters().overflows(), 1);

        let leaving = link(10);
        leaving.leave();
        assert!(!leaving.may_resume());
        assert!(!link(0).may_resume());
    }
}
