//! What the protocol costs by itself: frames taken apart and made, request heads parsed.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use megaphone_proto::frame::{ConnectionId, Decoder, put_frame};
use megaphone_proto::handshake::Handshake;
use megaphone_proto::http1::{parse_head, reread_head};
use megaphone_proto::limits::DEFAULT_MAX_CONTENT;
use megaphone_proto::link::{LinkConfig, Role};
use megaphone_proto::wheel::{Watch, Wheel};
use megaphone_proto::ws::{Event, Opcode, Reader, put_head, unmask};

/// About a stanza.
const CONTENT: [u8; 100] = [b'x'; 100];
/// One read from a link.
const CHUNK: usize = 65_536;

/// What a browser sends for a BOSH request.
const HEAD: &[u8] = b"POST /bosh HTTP/1.1\r\n\
    Host: chat.example.org\r\n\
    Connection: keep-alive\r\n\
    Content-Length: 212\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Content-Type: text/xml; charset=utf-8\r\n\
    Accept: */*\r\n\
    Origin: https://chat.example.org\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    \r\n";

fn chunk() -> (Vec<u8>, u64) {
    let mut chunk = Vec::new();
    let mut frames = 0;
    while chunk.len() < CHUNK {
        frames += 1;
        put_frame(ConnectionId::new(frames), &CONTENT, &mut chunk);
    }
    (chunk, frames)
}

fn frames(c: &mut Criterion) {
    let (chunk, frames) = chunk();
    let mut group = c.benchmark_group("frames of 100 bytes");
    group.throughput(Throughput::Elements(frames));
    group.bench_function("Decoder::next", |b| {
        let mut decoder = Decoder::new(DEFAULT_MAX_CONTENT);
        b.iter(|| {
            let mut input = black_box(&chunk[..]);
            while let Ok(Some(piece)) = decoder.next(&mut input) {
                black_box(piece);
            }
        });
    });
    group.bench_function("Link::next", |b| {
        let mut handshake = Handshake::new(LinkConfig::new(Role::Node, "bench", "00"));
        handshake.next(&mut &chunk[..]).unwrap();
        let mut link = handshake.finish();
        b.iter(|| {
            let mut input = black_box(&chunk[..]);
            while let Ok(Some(event)) = link.next(&mut input) {
                black_box(event);
            }
        });
    });
    group.bench_function("put_frame", |b| {
        let mut out = Vec::with_capacity(chunk.len());
        b.iter(|| {
            out.clear();
            for id in 1..=frames {
                put_frame(ConnectionId::new(id), black_box(&CONTENT), &mut out);
            }
            black_box(&out);
        });
    });
    group.finish();
}

fn heads(c: &mut Criterion) {
    let mut group = c.benchmark_group("a BOSH head of 9 headers");
    group.bench_function("parse_head", |b| {
        b.iter(|| parse_head(black_box(HEAD), |item| _ = black_box(item)));
    });
    group.bench_function("reread_head", |b| {
        b.iter(|| reread_head(black_box(HEAD), |item| _ = black_box(item)));
    });
    group.bench_function("httparse alone", |b| {
        b.iter(|| {
            let mut headers = [httparse::EMPTY_HEADER; 16];
            let mut request = httparse::Request::new(&mut headers);
            black_box(request.parse(black_box(HEAD)))
        });
    });
    group.finish();
}

/// A client's text message.
fn message(size: usize) -> Vec<u8> {
    let (head, length) = put_head(Opcode::Text, size);
    let mut frame = head[..length].to_vec();
    frame[1] |= 0x80;
    let key = [0xa1, 0xb2, 0xc3, 0xd4];
    frame.extend(key);
    let mut payload = vec![b'x'; size];
    unmask(&mut payload, key);
    frame.extend(payload);
    frame
}

/// A message out of the buffer into memory of its own, unmasked and checked.
fn websocket(c: &mut Criterion) {
    let mut group = c.benchmark_group("WebSocket message");
    for size in [100, 1000, 65_536] {
        let frame = message(size);
        let mut to = vec![0; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("{size} bytes"), |b| {
            let mut reader = Reader::default();
            b.iter(|| {
                let event = reader.next(&mut black_box(&frame[..]), usize::MAX);
                if let Ok(Some(Event::Message(_, payload))) = event {
                    payload.copy_to(black_box(&mut to)).unwrap();
                }
            });
        });
    }
}

/// A connection's time: one look each.
fn wheel(c: &mut Criterion) {
    const WATCHED: u64 = 1_000_000;
    let mut group = c.benchmark_group("a million connections watched");
    group
        .throughput(Throughput::Elements(WATCHED))
        .sample_size(10);
    group.bench_function("Wheel::watch and Wheel::expire", |b| {
        let mut wheel = Wheel::new();
        let (mut now, mut due) = (0, Vec::new());
        let mut watches = vec![Watch::default(); WATCHED as usize];
        b.iter(|| {
            for (id, watch) in (1..).zip(&mut watches) {
                wheel.watch(watch, ConnectionId::new(id), now + 1 + id as u32 % 300);
            }
            now += 300;
            while wheel.expire(now, 64, &mut due) {
                due.clear();
            }
            for watch in &mut watches {
                watch.fired(now);
            }
        });
    });
}

criterion_group!(benches, frames, heads, websocket, wheel);
criterion_main!(benches);
