//! What the protocol costs by itself: frames taken apart and made, request heads parsed.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use megaphone_proto::frame::{ConnectionId, Decoder, put_frame};
use megaphone_proto::handshake::Handshake;
use megaphone_proto::http1::parse_head;
use megaphone_proto::limits::DEFAULT_MAX_CONTENT;
use megaphone_proto::link::{LinkConfig, Role};

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
    group.bench_function("httparse alone", |b| {
        b.iter(|| {
            let mut headers = [httparse::EMPTY_HEADER; 16];
            let mut request = httparse::Request::new(&mut headers);
            black_box(request.parse(black_box(HEAD)))
        });
    });
    group.finish();
}

criterion_group!(benches, frames, heads);
criterion_main!(benches);
