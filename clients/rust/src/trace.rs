//! The current trace context, as the application's propagator writes it.

use opentelemetry::{Context, global, propagation::Injector};
use tonic::metadata::{MetadataKey, MetadataMap};

struct Pairs(Vec<(String, String)>);

impl Injector for Pairs {
    fn set(&mut self, key: &str, value: String) {
        self.0.push((key.to_owned(), value));
    }
}

/// What stands for the current context in headers; nothing unless the application has a propagator.
pub(crate) fn current() -> Vec<(String, String)> {
    let mut pairs = Pairs(Vec::new());
    global::get_text_map_propagator(|propagator| {
        propagator.inject_context(&Context::current(), &mut pairs);
    });
    pairs.0
}

/// Its `traceparent`; empty without one.
pub(crate) fn traceparent() -> String {
    let found = current().into_iter().find(|(key, _)| key == "traceparent");
    found.map(|(_, value)| value).unwrap_or_default()
}

pub(crate) fn write(pairs: &[(String, String)], metadata: &mut MetadataMap) {
    for (key, value) in pairs {
        // A propagator may write what no gRPC metadata can hold: the call goes on without it.
        if let (Ok(key), Ok(value)) = (MetadataKey::from_bytes(key.as_bytes()), value.parse()) {
            metadata.insert(key, value);
        }
    }
}
