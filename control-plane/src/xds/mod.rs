//! Subscriptions and streams.
