//! What rules may ask of a request.

use std::borrow::Cow;

use weft_rules::RequestView;

use super::RequestHead;

impl RequestView for RequestHead {
    fn method(&self) -> &[u8] {
        self.method()
    }

    fn path(&self) -> &[u8] {
        self.path()
    }

    fn query(&self) -> Option<&[u8]> {
        self.query()
    }

    fn authority(&self) -> &[u8] {
        self.authority()
    }

    fn scheme(&self) -> &[u8] {
        self.scheme()
    }

    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let mut values =
            self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value);
        let mut joined = Cow::Borrowed(values.next()?);
        for value in values {
            let joined = joined.to_mut();
            joined.push(b',');
            joined.extend_from_slice(value);
        }
        Some(joined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_see_repeated_fields_joined() {
        let mut head = RequestHead::new();
        head.set_method(b"GET");
        head.set_target(b"/a?b");
        head.fields.append(b"X-Tag", b"1");
        head.fields.append(b"other", b"x");
        head.fields.append(b"x-tag", b"2");
        let view: &dyn RequestView = &head;
        assert_eq!(view.header("x-tag").as_deref(), Some(&b"1,2"[..]));
        assert!(matches!(view.header("other"), Some(Cow::Borrowed(b"x"))));
        assert_eq!(view.header("absent"), None);
        assert_eq!((view.path(), view.query()), (&b"/a"[..], Some(&b"b"[..])));
    }
}
