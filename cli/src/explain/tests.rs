//! What is told of a request, from configurations as proxies hold them.

use weft_rules::RequestView as _;

use super::request::{Asked, Header, Url};

#[test]
fn urls_are_taken_apart_as_clients_do() {
    let url: Url = "http://reviews.shop:81/ratings/1?a=b&c=d".parse().unwrap();
    assert_eq!((url.host.as_str(), url.port), ("reviews.shop", 81));
    let asked = Asked::new("get", &url, &[]);
    assert_eq!((asked.path(), asked.query()), (&b"/ratings/1"[..], Some(&b"a=b&c=d"[..])));
    assert_eq!((asked.method(), asked.authority()), (&b"GET"[..], &b"reviews.shop:81"[..]));
    let bare: Url = "reviews".parse().unwrap();
    assert_eq!((bare.port, Asked::new("GET", &bare, &[]).path()), (80, &b"/"[..]));
    let six: Url = "http://[fd00:198:18::7]:8080/".parse().unwrap();
    assert_eq!((six.host.as_str(), six.port), ("fd00:198:18::7", 8080));
    for wrong in ["https://reviews/", "http://", "http:///x", "http://a b/", "http://a:x/"] {
        assert!(wrong.parse::<Url>().is_err(), "{wrong}");
    }
}

#[test]
fn repeated_headers_are_one_and_the_host_is_no_header() {
    let url: Url = "http://reviews/".parse().unwrap();
    let headers: Vec<Header> = ["X-User: ann", "x-user:bob", "Host: other"].map(|text| text.parse().unwrap()).to_vec();
    let asked = Asked::new("GET", &url, &headers);
    assert_eq!(asked.header("x-user").as_deref(), Some(&b"ann,bob"[..]));
    assert_eq!((asked.header("host"), asked.authority()), (None, &b"other"[..]));
    assert!("nothing".parse::<Header>().is_err());
}
