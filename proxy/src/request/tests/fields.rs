//! Fields of `HttpConnectionManager` and `Cluster` as their users know them: each by what it does to bytes.

use super::sim::{Config, serve, with_proxy};

#[tokio::test(start_paused = true)]
async fn trailers_pass_only_where_both_sides_enable_them() {
    const ENABLED: &str = "http_protocol_options: {enable_trailers: true}";
    for (manager, cluster, pass) in
        [("", "", false), (ENABLED, "", false), ("", ENABLED, false), (ENABLED, ENABLED, true)]
    {
        with_proxy(Config { manager, cluster, ..Config::default() }, |sim| async move {
            let seen =
                serve(&sim, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Down: 1\r\n\r\n");
            let request =
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Up: 1\r\n\r\n";
            // The second request shows that the connections are still in step.
            let two = format!("{request}GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            let complete =
                |answer: &str| answer.matches("2\r\nok\r\n0\r\n").count() == 2 && answer.ends_with("\r\n\r\n");
            let answer = sim.talk(&two, complete).await;
            assert_eq!(seen.borrow().contains("X-Up: 1"), pass, "{}", seen.borrow());
            assert_eq!(answer.matches("X-Down: 1").count(), if pass { 2 } else { 0 }, "{answer}");
        })
        .await;
    }
}
