//! `docs/reference/xds.md` says what the table in code says.
//!
//! After a change of the table: `WEFT_WRITE_REFERENCE=1 cargo test -p weft-xds --test reference`.

use std::fmt::Write as _;
use weft_xds::support::{Support, rows};

#[test]
fn the_reference_page_lists_every_field() {
    let page = page();
    let path = "../docs/reference/xds.md";
    if std::env::var_os("WEFT_WRITE_REFERENCE").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == page,
        "docs/reference/xds.md is out of date: run WEFT_WRITE_REFERENCE=1 cargo test -p weft-xds --test reference"
    );
}

fn page() -> String {
    let mut page = String::from(
        "# xDS: what is implemented\n\n\
         Every field of every Envoy v3 message that `weft-proxy` knows, as the table in `xds/src/support/` decides it:\n\n\
         - **enforced**: it does what Envoy's documentation says, or is refused for the values that are not implemented;\n\
         - *ignored*: it changes no traffic (names, statistics, log tuning); setting it is reported in the log;\n\
         - refused: a resource that sets it is answered with a NACK, a file with exit code 1, both naming the field's path.\n\n\
         A field that is not listed is unknown, and refused as well. Unset fields have Envoy's defaults (where the last column is empty: nothing,\n\
         zero or off), but for one: `Http2ProtocolOptions.initial_stream_window_size` is 256 KiB, not 16 MiB, which would be held for every stream whose\n\
         reader has stalled. A connection to an endpoint carries no more streams at once than its `initial_connection_window_size` (24 MiB\n\
         where unset) holds stream windows, so that stalled readers never hold up others; further streams open further connections, as far\n\
         as the cluster's `max_connections` allows.\n",
    );
    let mut message = "";
    for row in rows() {
        if row.message != message {
            message = row.message;
            // Writing to a String cannot fail.
            let _ = write!(page, "\n## {message}\n\n| number | field | | where unset |\n|---|---|---|---|\n");
        }
        let support = match row.support {
            Support::Enforced => "**enforced**",
            Support::Ignored => "*ignored*",
            Support::Refused => "refused",
        };
        let default = row.default.unwrap_or_default();
        let _ = writeln!(page, "| {} | `{}` | {support} | {default} |", row.number, row.field);
    }
    page
}
