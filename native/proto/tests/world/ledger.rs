//! The truth: what was sent on each connection, and what of it has come. Every byte says whose it
//! is and where it belongs.

use std::collections::{BTreeMap, BTreeSet};

use megaphone_proto::ConnectionId;
use megaphone_proto::link::Role;

use super::choice::mix;

/// One direction of a connection.
#[derive(Debug, Default)]
struct Flow {
    sent: u64,
    got: u64,
    /// The sender ended its direction, or closed the connection, after so many bytes.
    ended: Option<u64>,
    closed: Option<u64>,
}

/// What one side knows of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Here {
    #[default]
    Unknown,
    Open,
    Gone,
}

#[derive(Debug, Default)]
struct Connection {
    /// By the side that sends.
    flows: [Flow; 2],
    /// By side.
    here: [Here; 2],
    link: u64,
}

/// All connections of a run.
#[derive(Default)]
pub struct Ledger {
    connections: BTreeMap<ConnectionId, Connection>,
    /// Links that one side lost, or both.
    lost: BTreeSet<u64>,
}

/// A side's place in a pair: the edge's, then the node's.
pub fn at(role: Role) -> usize {
    match role {
        Role::Edge => 0,
        Role::Node => 1,
    }
}

fn other(role: Role) -> usize {
    1 - at(role)
}

/// The byte that stands at `place` of what `side` sends on `id`.
fn stamp(side: usize, id: ConnectionId, place: u64) -> u8 {
    // One mix for eight bytes.
    let word = mix(id.get() ^ (place >> 3) << 1 ^ side as u64);
    (word >> (8 * (place & 7))) as u8
}

impl Ledger {
    /// A fresh id.
    pub fn fresh(&self) -> ConnectionId {
        ConnectionId::new(mix(self.connections.len() as u64 + 1))
    }

    /// `role` has `id` on `link` from now on: the edge by its own will, the node when it is told.
    pub fn open(&mut self, role: Role, id: ConnectionId, link: u64) {
        if role == Role::Edge {
            let connection = Connection {
                link,
                ..Connection::default()
            };
            self.connections.insert(id, connection);
        }
        let here = &mut self
            .connections
            .get_mut(&id)
            .expect("an edge opened it")
            .here[at(role)];
        assert_eq!(*here, Here::Unknown, "{id} is opened twice");
        *here = Here::Open;
    }

    fn flow(&mut self, side: usize, id: ConnectionId) -> &mut Flow {
        let found = self.connections.get_mut(&id);
        &mut found.expect("a connection that nobody opened").flows[side]
    }

    /// `n` more bytes that `role` sends on `id`.
    pub fn send(&mut self, role: Role, id: ConnectionId, n: u32) -> Vec<u8> {
        let flow = self.flow(at(role), id);
        let first = flow.sent;
        flow.sent += u64::from(n);
        (first..flow.sent)
            .map(|place| stamp(at(role), id, place))
            .collect()
    }

    pub fn end(&mut self, role: Role, id: ConnectionId) {
        let flow = self.flow(at(role), id);
        flow.ended = Some(flow.sent);
    }

    pub fn close(&mut self, role: Role, id: ConnectionId) {
        let flow = self.flow(at(role), id);
        flow.closed = Some(flow.sent);
        self.gone(role, id);
    }

    /// `role` no longer has `id`.
    pub fn gone(&mut self, role: Role, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.here[at(role)] = Here::Gone;
        }
    }

    /// `role` lost `link`, with these connections.
    pub fn lost(&mut self, role: Role, link: u64, open: Vec<ConnectionId>) {
        self.lost.insert(link);
        open.into_iter().for_each(|id| self.gone(role, id));
    }

    /// `bytes` came to `role` on `id`.
    pub fn came(&mut self, role: Role, id: ConnectionId, bytes: &[u8]) {
        let from = other(role);
        let flow = self.flow(from, id);
        assert!(
            flow.ended.is_none_or(|end| flow.got < end),
            "content of {id} after its end"
        );
        for byte in bytes {
            assert_eq!(
                *byte,
                stamp(from, id, flow.got),
                "byte {} of {id}",
                flow.got
            );
            flow.got += 1;
        }
        assert!(flow.got <= flow.sent, "more of {id} than was sent");
    }

    /// The end of the other side's direction came to `role`.
    pub fn end_came(&mut self, role: Role, id: ConnectionId) {
        let flow = self.flow(other(role), id);
        assert_eq!(flow.ended, Some(flow.got), "{id} ended early");
    }

    /// The other side's `close` or `reset` came to `role`, which still had the connection.
    pub fn close_came(&mut self, role: Role, id: ConnectionId) {
        let flow = self.flow(other(role), id);
        assert_eq!(flow.closed, Some(flow.got), "{id} closed early");
        self.gone(role, id);
    }

    /// Was `id` open at `role` once, and is no longer?
    pub fn is_gone(&self, role: Role, id: ConnectionId) -> bool {
        let connection = self.connections.get(&id);
        connection.is_some_and(|connection| connection.here[at(role)] == Here::Gone)
    }

    /// Nothing is on its way: both sides have the same connections, and all that was sent on
    /// those has come.
    pub fn assert_settled(&self) {
        for (id, connection) in &self.connections {
            match connection.here {
                [Here::Open, Here::Open] => {
                    let all_came = connection.flows.iter().all(|flow| flow.got == flow.sent);
                    assert!(all_came, "{id} lacks bytes: {connection:?}");
                }
                // The link was lost before the node heard of it.
                [Here::Gone, Here::Unknown] if self.lost.contains(&connection.link) => {}
                here => assert_eq!(here, [Here::Gone; 2], "{id}: {connection:?}"),
            }
        }
    }

    /// Connections in all, links lost, and bytes that came.
    pub fn totals(&self) -> (u64, u64, u64) {
        let all = self.connections.values();
        let came = all
            .flat_map(|connection| &connection.flows)
            .map(|flow| flow.got)
            .sum();
        (self.connections.len() as u64, self.lost.len() as u64, came)
    }
}
