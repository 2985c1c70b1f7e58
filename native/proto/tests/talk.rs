//! Two ends of a link in one process, doing what users do in any order, over a wire that cuts
//! the bytes anywhere. Every byte of content says whose it is and where it belongs.

use std::collections::{BTreeMap, BTreeSet};

use megaphone_proto::conn::{Conn, ConnError, State};
use megaphone_proto::control::{CloseReason, Control, Open};
use megaphone_proto::credit::NO_GROWTH;
use megaphone_proto::frame::{ConnectionId, put_frame};
use megaphone_proto::handshake::{Handshake, Identity, Step};
use megaphone_proto::limits::MIN_MAX_CONTENT;
use megaphone_proto::table::{OpenError, Table};
use megaphone_proto::{Event, Link, LinkConfig, LinkError, Role};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

const WINDOW: u32 = 64;

/// One side: the parts of the crate put together as an owner of a link does it.
struct End {
    role: Role,
    link: Link,
    table: Table<Conn>,
    /// What was written and the other side has not yet got.
    wire: Vec<u8>,
    /// Content written, by connection; the next byte's place in its stream.
    sent: BTreeMap<ConnectionId, usize>,
    /// Content that came, by connection; how much of it the reader has taken.
    got: BTreeMap<ConnectionId, (usize, usize)>,
    /// Connections that were open here and are gone, and frames that still came for them.
    gone: BTreeSet<ConnectionId>,
    dropped: usize,
}

/// Both ends of a link that is up.
fn ends(version: u32) -> (End, End) {
    let [mut edge, mut node] = [Role::Edge, Role::Node].map(|role| {
        Handshake::new(LinkConfig {
            version,
            window: WINDOW,
            max_content: MIN_MAX_CONTENT,
            ..LinkConfig::new(role, "end", "00")
        })
    });
    if let Some(hello) = edge.hello() {
        assert_eq!(node.next(&mut &hello.to_frame()[..]), Ok(Some(Step::Hello)));
        let answer = node.answer(Identity {
            link: "link".into(),
            token: "00".into(),
            resumed: None,
        });
        assert_eq!(node.next(&mut &[][..]), Ok(Some(Step::Up { version })));
        let up = edge.next(&mut &answer.to_frame()[..]);
        assert_eq!(up, Ok(Some(Step::Up { version })));
    } else {
        // The first frame alone makes a node's link version 1; what it is of does not matter.
        let mut first = Vec::new();
        put_frame(ConnectionId::new(1), b"", &mut first);
        assert_eq!(node.next(&mut &first[..]), Ok(Some(Step::Up { version })));
    }
    let [edge, node] = [(Role::Edge, edge), (Role::Node, node)]
        .map(|(role, handshake)| End::new(role, handshake.finish()));
    (edge, node)
}

impl End {
    fn new(role: Role, link: Link) -> End {
        End {
            role,
            link,
            table: Table::new(100),
            wire: Vec::new(),
            sent: BTreeMap::new(),
            got: BTreeMap::new(),
            gone: BTreeSet::new(),
            dropped: 0,
        }
    }

    fn v1(&self) -> bool {
        self.link.version() == 1
    }

    /// The connection number `nth` of those that are open, if any is.
    fn pick(&self, nth: Index) -> Option<ConnectionId> {
        let mut open: Vec<_> = self.table.iter().map(|(id, _)| id).collect();
        open.sort();
        (!open.is_empty()).then(|| open[nth.index(open.len())])
    }

    fn open(&mut self, id: ConnectionId) {
        if self.table.may_open(id).is_err() {
            return;
        }
        self.table.open(id, self.link.new_conn()).unwrap();
        if !self.v1() {
            Control::Open(Open {
                id,
                service: "echo".into(),
                peer: "192.0.2.1:5".parse().unwrap(),
                local: "192.0.2.2:5".parse().unwrap(),
                tls: None,
            })
            .put(&mut self.wire);
        }
    }

    fn send(&mut self, id: ConnectionId, want: u32) {
        let conn = self.table.get_mut(&id).unwrap();
        let n = conn.take_credit(want) as usize;
        let sent = self.sent.entry(id).or_default();
        let content: Vec<u8> = (*sent..*sent + n)
            .map(|at| stamp(self.role, id, at))
            .collect();
        *sent += n;
        if !content.is_empty() {
            put_frame(id, &content, &mut self.wire);
        }
    }

    /// The reader takes `n` bytes of what came.
    fn read(&mut self, id: ConnectionId, n: usize) {
        let (got, taken) = self.got.entry(id).or_default();
        let n = n.min(*got - *taken);
        *taken += n;
        let grant = self
            .table
            .get_mut(&id)
            .unwrap()
            .release(n as u32, &NO_GROWTH);
        if let Some(bytes) = grant {
            Control::Window { id, bytes }.put(&mut self.wire);
        }
    }

    fn end(&mut self, id: ConnectionId) {
        let conn = self.table.get_mut(&id).unwrap();
        if !conn.may_send() {
            return;
        }
        put_frame(id, b"", &mut self.wire);
        if conn.we_ended() == State::Closed {
            self.forget(id);
        }
    }

    fn close(&mut self, id: ConnectionId) {
        let conn = self.table.remove(id).unwrap();
        self.gone.insert(id);
        if !self.v1() {
            let reason = CloseReason::ServerClosed;
            return Control::Close { id, reason }.put(&mut self.wire);
        }
        if conn.may_send() {
            put_frame(id, b"", &mut self.wire);
        }
        if conn.may_receive() {
            self.table.bury(id);
        }
    }

    fn forget(&mut self, id: ConnectionId) {
        self.table.remove(id);
        self.gone.insert(id);
    }

    fn hear(&mut self, mut input: &[u8]) -> Result<(), LinkError> {
        let mut link = self.link.clone();
        while let Some(event) = link.next(&mut input)? {
            self.link = link.clone();
            self.take(event)?;
        }
        self.link = link;
        Ok(())
    }

    fn take(&mut self, event: Event<'_>) -> Result<(), LinkError> {
        match event {
            Event::Open(open) => {
                let opened = self.table.open(open.id, self.link.new_conn());
                opened.expect("an edge opens an id once");
            }
            Event::Content { id, bytes } => self.content(id, bytes)?,
            Event::End { id } => self.ended(id),
            Event::Window { id, bytes } => match self.table.get_mut(&id) {
                Some(conn) => conn.granted(bytes).unwrap(),
                None => assert!(self.gone.contains(&id)),
            },
            Event::Close { id, .. } => self.forget(id),
            other => panic!("nobody sends {other:?} here"),
        }
        Ok(())
    }

    fn content(&mut self, id: ConnectionId, bytes: &[u8]) -> Result<(), LinkError> {
        self.open_by_frame(id);
        let Some(conn) = self.table.get_mut(&id) else {
            assert!(self.gone.contains(&id), "content for {id}, never open");
            self.dropped += 1;
            return Ok(());
        };
        match conn.receive(bytes.len() as u32) {
            Ok(()) => {}
            Err(ConnError::Credit(error)) => return Err(LinkError::Credit { id, error }),
            Err(ConnError::AfterEnd) => panic!("content after the end of {id}"),
        }
        let other = match self.role {
            Role::Edge => Role::Node,
            Role::Node => Role::Edge,
        };
        let (got, _) = self.got.entry(id).or_default();
        for byte in bytes {
            assert_eq!(*byte, stamp(other, id, *got), "byte {got} of {id}");
            *got += 1;
        }
        Ok(())
    }

    fn ended(&mut self, id: ConnectionId) {
        if self.table.unbury(id) {
            return;
        }
        self.open_by_frame(id);
        match self.table.get_mut(&id).map(Conn::peer_ended) {
            Some(Ok(State::Closed)) => self.forget(id),
            Some(ended) => assert_eq!(ended, Ok(State::PeerEnded)),
            None => assert!(self.gone.contains(&id)),
        }
    }

    /// Version 1: the first frame of an unknown id opens the connection.
    fn open_by_frame(&mut self, id: ConnectionId) {
        if self.v1() && self.role == Role::Node {
            match self.table.open(id, self.link.new_conn()) {
                Ok(()) | Err(OpenError::Duplicate | OpenError::Buried) => {}
                Err(full) => panic!("{full}"),
            }
        }
    }
}

/// The byte that stands at `at` in the stream that `from` sends on `id`.
fn stamp(from: Role, id: ConnectionId, at: usize) -> u8 {
    let side = if from == Role::Edge { 0 } else { 101 };
    (id.get() as u8)
        .wrapping_mul(37)
        .wrapping_add(at as u8)
        .wrapping_add(side)
}

/// Moves up to `n` bytes over the wire.
fn carry(from: &mut End, to: &mut End, n: usize) {
    let n = n.min(from.wire.len());
    let bytes: Vec<u8> = from.wire.drain(..n).collect();
    to.hear(&bytes).unwrap();
}

fn carry_all(edge: &mut End, node: &mut End) {
    while !(edge.wire.is_empty() && node.wire.is_empty()) {
        carry(edge, node, usize::MAX);
        carry(node, edge, usize::MAX);
    }
}

#[derive(Clone, Debug)]
enum Do {
    Open,
    Send { from: Role, to: Index, bytes: u32 },
    Read { at: Role, from: Index, bytes: usize },
    End { from: Role, which: Index },
    Close { from: Role, which: Index },
    Carry { from: Role, bytes: usize },
}

fn deeds() -> impl Strategy<Value = Vec<Do>> {
    let role = || prop_oneof![Just(Role::Edge), Just(Role::Node)];
    let some = || any::<Index>();
    let deed = prop_oneof![
        2 => Just(Do::Open),
        6 => (role(), some(), 0..100u32).prop_map(|(from, to, bytes)| Do::Send { from, to, bytes }),
        4 => (role(), some(), 0..100usize)
            .prop_map(|(at, from, bytes)| Do::Read { at, from, bytes }),
        1 => (role(), some()).prop_map(|(from, which)| Do::End { from, which }),
        1 => (role(), some()).prop_map(|(from, which)| Do::Close { from, which }),
        6 => (role(), 0..200usize).prop_map(|(from, bytes)| Do::Carry { from, bytes }),
    ];
    vec(deed, 0..120)
}

fn act(deed: Do, edge: &mut End, node: &mut End, opened: &mut u64) {
    let side = |role| if role == Role::Edge { 0 } else { 1 };
    let mut ends = [edge, node];
    match deed {
        Do::Open => {
            *opened += 1;
            ends[0].open(ConnectionId::new(*opened));
        }
        Do::Send { from, to, bytes } => {
            let end = &mut ends[side(from)];
            if let Some(id) = end.pick(to) {
                end.send(id, bytes);
            }
        }
        Do::Read { at, from, bytes } => {
            let end = &mut ends[side(at)];
            if let Some(id) = end.pick(from) {
                end.read(id, bytes);
            }
        }
        Do::End { from, which } => {
            let end = &mut ends[side(from)];
            if let Some(id) = end.pick(which) {
                end.end(id);
            }
        }
        Do::Close { from, which } => {
            let end = &mut ends[side(from)];
            if let Some(id) = end.pick(which) {
                end.close(id);
            }
        }
        Do::Carry { from, bytes } => {
            let [edge, node] = ends;
            match from {
                Role::Edge => carry(edge, node, bytes),
                Role::Node => carry(node, edge, bytes),
            }
        }
    }
}

/// What was sent on a connection that neither side closed has all arrived.
fn assert_nothing_lost(from: &End, to: &End) {
    for (id, sent) in &from.sent {
        let got = to.got.get(id).map_or(0, |(got, _)| *got);
        assert!(got <= *sent);
        if to.table.get(id).is_some() && from.table.get(id).is_some() {
            assert_eq!(got, *sent, "{id}");
        }
    }
}

proptest! {
    #[test]
    fn whatever_two_ends_do_they_agree(version in 1..=2u32, deeds in deeds()) {
        let (mut edge, mut node) = ends(version);
        let mut opened = 0;
        for deed in deeds {
            act(deed, &mut edge, &mut node, &mut opened);
        }
        carry_all(&mut edge, &mut node);
        for (from, to) in [(&edge, &node), (&node, &edge)] {
            prop_assert!(!to.link.mid_frame());
            prop_assert_eq!(to.link.end_of_input(), Ok(()));
            assert_nothing_lost(from, to);
        }
        let open = |end: &End| end.table.iter().map(|(id, _)| id).collect::<BTreeSet<_>>();
        if version == 2 {
            prop_assert_eq!(open(&edge), open(&node));
        }
        // In version 1 the edge may know of more than the node: those that have sent nothing.
        // And one that it closed stays half open on the node, which is not told more than that.
        for id in open(&node) {
            prop_assert!(edge.table.get(&id).is_some() || edge.table.is_buried(id));
        }
    }
}

#[test]
fn a_reader_that_stalls_costs_one_window_and_holds_up_nobody() {
    let (mut edge, mut node) = ends(2);
    let (stalled, busy) = (ConnectionId::new(1), ConnectionId::new(2));
    edge.open(stalled);
    edge.open(busy);
    for _ in 0..100 {
        edge.send(stalled, 50);
        edge.send(busy, 50);
        carry_all(&mut edge, &mut node);
        node.read(busy, 50);
        carry_all(&mut edge, &mut node);
    }
    assert_eq!(node.got[&stalled], (WINDOW as usize, 0));
    assert_eq!(node.got[&busy], (5_000, 5_000));
    node.read(stalled, WINDOW as usize);
    carry_all(&mut edge, &mut node);
    edge.send(stalled, 50);
    carry_all(&mut edge, &mut node);
    assert_eq!(node.got[&stalled].0, WINDOW as usize + 50);
}

#[test]
fn content_over_the_credit_breaks_the_link() {
    let (mut edge, mut node) = ends(2);
    let id = ConnectionId::new(7);
    edge.open(id);
    edge.send(id, WINDOW);
    carry_all(&mut edge, &mut node);
    let mut one_more = Vec::new();
    put_frame(id, b"x", &mut one_more);
    let error = node.hear(&one_more).unwrap_err();
    assert_eq!(
        error.to_string(),
        "connection 00000000000000000007: sent 1 bytes with a credit of 0"
    );
}

#[test]
fn ten_thousand_come_and_go_and_leave_nothing() {
    for version in [1, 2] {
        let (mut edge, mut node) = ends(version);
        for number in 1..=10_000 {
            let id = ConnectionId::new(number);
            edge.open(id);
            edge.send(id, 1);
            carry_all(&mut edge, &mut node);
            node.close(id);
            carry_all(&mut edge, &mut node);
            if version == 1 {
                edge.end(id);
            }
            carry_all(&mut edge, &mut node);
            assert!(!node.table.is_buried(id));
        }
        assert!(edge.table.is_empty() && node.table.is_empty());
        assert_eq!((edge.dropped, node.dropped), (0, 0));
    }
}
