"""What tests of a new backend, reader or writer stand on: conformance suites and exact fakes."""
