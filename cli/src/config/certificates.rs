//! A proxy's own certificate and the roots it trusts, from its `/certs` (Envoy's shape).

use serde_json::Value;

use super::dump::{join, list, text};
use crate::output::Table;

pub(crate) fn table(certs: &Value) -> String {
    let mut table = Table::new(["CERTIFICATE", "NAMES", "VALID FROM", "UNTIL", "SERIAL"]);
    for group in list(&certs["certificates"]) {
        for (kind, field) in [("own", "cert_chain"), ("trusted root", "ca_cert")] {
            for certificate in list(&group[field]) {
                let names = list(&certificate["subject_alt_names"])
                    .map(|name| ["uri", "dns", "ip_address"].map(|kind| text(&name[kind])).concat());
                table.row([
                    kind.to_owned(),
                    join(names, " "),
                    text(&certificate["valid_from"]).to_owned(),
                    text(&certificate["expiration_time"]).to_owned(),
                    text(&certificate["serial_number"]).to_owned(),
                ]);
            }
        }
    }
    table.titled("CERTIFICATES", "none yet; the proxy's log says why")
}
