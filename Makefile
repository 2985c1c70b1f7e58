# The one command surface of megaphone; CI calls nothing else. `make help` lists it.

# Where `make install` puts things. DESTDIR stages a package.
PREFIX  ?= /usr/local
ERL_LIB ?= $(or $(shell erl -noshell -eval 'io:put_chars(code:lib_dir()), halt().' 2>/dev/null),/usr/lib/erlang/lib)
VERSION := $(shell sed -n 's/.*{vsn, *"\([^"]*\)"}.*/\1/p' erlang/src/megaphone.app.src)
BUILT   := _build/default/lib/megaphone

# All that is needed is here or comes from Debian and crates.io: rebar3 never asks hex.
export REBAR_OFFLINE = 1

.PHONY: build run test check soak fuzz memcheck bench install uninstall clean help

build: ## compile the NIF, the edge daemon, the load tool and the Erlang application (the default)
	scripts/packages build
	@echo 'compiling; the Rust parts take a few minutes the first time'
	rebar3 compile
	@scripts/native load

run: ## start an ejabberd of its own with a web chat through megaphone, until Ctrl-C (scripts/run --help)
	scripts/packages build run
	@echo 'compiling; the Rust parts take a few minutes the first time'
	rebar3 compile
	@scripts/run

test: ## run every test: cargo's, Common Test's (the end-to-end ones included), and the benchmark's quick form
	scripts/packages build run test
	@scripts/test

check: ## formatting, clippy, xref, dialyzer, shellcheck
	scripts/packages build check
	@scripts/check

soak: ## the long forms of the tests that look for what is lost (MINUTES=10 SEED=; scripts/soak --help)
	scripts/packages build run test
	@scripts/soak

fuzz: ## look for inputs that break the protocol's code (TARGET=frames, all by default; SECONDS=60 for each)
	scripts/packages build fuzz
	@FUZZ_SECONDS=$(or $(SECONDS),60) scripts/fuzz $(TARGET)

memcheck: ## the NIF's suites under AddressSanitizer, some minutes (SUITES='socket_SUITE', those of links and sockets by default)
	scripts/packages build run test
	@scripts/memcheck $(SUITES)

bench: ## measure stock ejabberd and megaphone side by side, 30 minutes, into docs/ (PART=2,3 QUICK=1 RUNS=3 PROFILE=1 RENDER=1)
	scripts/packages build run
	rebar3 compile
	@PART='$(PART)' QUICK='$(QUICK)' RUNS='$(RUNS)' PROFILE='$(PROFILE)' RENDER='$(RENDER)' LIST='$(LIST)' scripts/bench

install: ## put the built application where Erlang, and so ejabberd, finds it, and megaphone-ecm and megaphone-load into PREFIX/bin
	@scripts/install $(BUILT) "$(DESTDIR)$(ERL_LIB)/megaphone-$(VERSION)" "$(DESTDIR)$(PREFIX)/bin"

uninstall: ## take away what `make install` put there
	@scripts/install --remove "$(DESTDIR)$(ERL_LIB)/megaphone-$(VERSION)" "$(DESTDIR)$(PREFIX)/bin"

clean: ## remove all that was built, downloaded and run
	cargo clean
	rm -rf _build _run erlang/priv

help: ## this list
	@echo 'usage: make [TARGET] [NAME=VALUE...]'
	@sed -n 's/^\([a-z]*\):[^#]*## /\1|/p' Makefile | awk -F '|' '{ printf "  %-10s %s\n", $$1, $$2 }'
	@echo 'run:     HTTP_PORT=5280 C2S_PORT=5222 MQTT_PORT=1883 LINK_PORT=6280 RUN_DIR=_run'
	@echo '         EJABBERD=DIR and ERL_LIBS for an ejabberd of your own, or EJABBERD_VERSION=23.01|24.12'
	@echo 'install: DESTDIR= PREFIX=/usr/local ERL_LIB=(the lib folder of erl)'
