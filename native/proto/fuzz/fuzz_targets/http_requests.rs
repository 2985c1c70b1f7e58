#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| megaphone_proto_fuzz::http_requests(data));
