# Each target installs what it needs (apt packages included) and works as root on a fresh Debian 12
# with Rust installed.

.PHONY: all demo test bench nightly install check

all:
	cargo build --release --workspace

# The packages that the demo, the tests and the benchmark use.
install:
	.ci/install

# A replicated volume keeps every byte while its parts are killed.
demo: install all
	target/release/ankole-chaos demo

# The one gate. Ends with a count of what ran.
test: install
	.ci/test

# A volume beside stock tgt on a plain file, in one run.
bench: install all
	target/release/ankole-chaos bench

# Hours rather than minutes: more seeds, fuzzing, advisories and licences.
nightly: install
	.ci/nightly

# What to run while writing: seconds, not minutes.
check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
