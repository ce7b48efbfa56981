//! The shop: an e-commerce application made of ordinary microservices, one binary, role by argument.
//!
//! It is what the demo and the namespace tests put behind sidecars, so it holds **no mesh code**: plain
//! HTTP/1.1, cleartext HTTP/2, gRPC, WebSocket and TCP, on plain ports, with names from the hosts file.
//!
//! Code map: [`server`] runs every HTTP role (listeners, graceful end, who answered), [`admin`] is the loopback
//! port through which a replica is told to fail; one file or folder per role; [`client`] makes one call of any
//! protocol and says precisely how it failed, for [`probe`] (one call) and [`loadgen`] (many).

mod admin;
mod cart;
mod catalog;
mod client;
mod loadgen;
mod notifications;
mod payments;
mod probe;
mod queue;
mod reviews;
mod server;
mod web;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The stubs generated from `proto/shop.proto`.
#[allow(missing_docs, unreachable_pub, clippy::unwrap_used)]
mod pb {
    tonic::include_proto!("weft.shop.v1");
}

/// A small e-commerce shop without a line of mesh code.
#[derive(Debug, Parser)]
#[command(name = "weft-shop", version)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Front end: the shop's page and its JSON API (HTTP/1.1)
    Web(Box<web::Args>),
    /// Products and prices (HTTP/2 without TLS)
    Catalog(server::Args),
    /// Shopping carts (gRPC)
    Cart(server::Args),
    /// Payments (gRPC)
    Payments(server::Args),
    /// Reviews; version v2 adds stars (HTTP/1.1)
    Reviews(server::Args),
    /// Live notifications (WebSocket over HTTP/1.1)
    Notifications(server::Args),
    /// Order queue (a line protocol on TCP in which the server speaks first)
    Queue(server::Args),
    /// Steady load on one or more targets, with statistics
    Loadgen(loadgen::Args),
    /// One call of any protocol, its answer as JSON; exit code 1 if it failed
    Probe(probe::Args),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().role {
        Role::Web(args) => web::run(*args).await,
        Role::Catalog(args) => catalog::run(args).await,
        Role::Cart(args) => cart::run(args).await,
        Role::Payments(args) => payments::run(args).await,
        Role::Reviews(args) => reviews::run(args).await,
        Role::Notifications(args) => notifications::run(args).await,
        Role::Queue(args) => queue::run(args).await,
        Role::Loadgen(args) => loadgen::run(args).await,
        Role::Probe(args) => probe::run(args).await,
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weft-shop: {error:#}");
            ExitCode::FAILURE
        }
    }
}
