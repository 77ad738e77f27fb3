//! Spans of the service for a collector of OpenTelemetry, over OTLP/HTTP.
//!
//! Where to, as what, and which of them, is said by the variables of OpenTelemetry's specification:
//! `OTEL_EXPORTER_OTLP_ENDPOINT` (without it, or `…_TRACES_ENDPOINT`, nothing is exported),
//! `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`. Whatever happens to the collector, calls go on: spans
//! that it does not take in time are dropped.

use std::time::Duration;

use opentelemetry::trace::{
    SpanBuilder, SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId, TraceState,
    Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context as InSubscriber;
use tracing_subscriber::registry::LookupSpan;

use crate::error::Error;

/// How long the last spans may take to get away when the command ends.
const FLUSH_TIME: Duration = Duration::from_secs(2);

/// What the service is called unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` says
/// otherwise.
const NAME: &str = "gangline";

/// Where spans are exported from; its drop sends the last ones.
#[derive(Debug)]
pub(crate) struct Exporting(SdkTracerProvider);

impl Drop for Exporting {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH_TIME) {
            tracing::warn!(%error, "the last spans could not be exported");
        }
    }
}

/// Returns what takes the service's spans, if the environment names a collector.
pub(crate) fn layer<S>() -> Result<Option<(impl Layer<S>, Exporting)>, Error>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let endpoints = [
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    ];
    if endpoints.iter().all(|name| is_unset(name)) {
        return Ok(None);
    }
    // For collectors at https addresses. Another that is installed already does as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let exporter = SpanExporter::builder()
        .with_http()
        .build()
        .map_err(|error| {
            Error::usage(format!("cannot export spans: {error}"))
                .hint("OTEL_EXPORTER_OTLP_ENDPOINT names a collector, as in http://127.0.0.1:4318")
        })?;
    let mut resource = Resource::builder();
    if is_unset("OTEL_SERVICE_NAME") {
        let named = Resource::builder().build();
        let name = named
            .get(&"service.name".into())
            .map(|name| name.to_string());
        if name.is_none_or(|name| name.starts_with("unknown_service")) {
            resource = resource.with_service_name(NAME);
        }
    }
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource.build())
        .build();
    let export = Export {
        tracer: provider.tracer(NAME),
    };
    // What logs show is another matter: these spans are wanted at any level of theirs.
    let own = Targets::new().with_target("gangline_server::http", Level::DEBUG);
    Ok(Some((export.with_filter(own), Exporting(provider))))
}

/// The names are OpenTelemetry's, and no flags of ours.
fn is_unset(name: &str) -> bool {
    std::env::var_os(name).is_none_or(|value| value.is_empty())
}

/// Makes a span of OpenTelemetry of each span of ours.
struct Export {
    tracer: SdkTracer,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Export {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: InSubscriber<'_, S>) {
        let Some(span) = context.span(id) else {
            return;
        };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        // What came with the call or its item goes before what our own span is in.
        let parent = fields.parent.take().map(remote).or_else(|| {
            let parent = span.parent()?;
            let extensions = parent.extensions();
            extensions.get::<Context>().cloned()
        });
        let parent = parent.unwrap_or_default();
        let kind = match attributes.metadata().name() {
            "request" => SpanKind::Server,
            _ => SpanKind::Internal,
        };
        let name = fields
            .name()
            .unwrap_or_else(|| attributes.metadata().name().to_owned());
        let built = SpanBuilder::from_name(name)
            .with_kind(kind)
            .with_attributes(fields.attributes);
        let begun = self.tracer.build_with_context(built, &parent);
        span.extensions_mut().insert(parent.with_span(begun));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: InSubscriber<'_, S>) {
        let mut fields = Fields::default();
        values.record(&mut fields);
        add(id, fields, &context);
    }

    /// What is said of a call at its end belongs to its span.
    fn on_event(&self, event: &Event<'_>, context: InSubscriber<'_, S>) {
        let Some(span) = context.event_span(event) else {
            return;
        };
        let mut fields = Fields::default();
        event.record(&mut fields);
        fields.attributes.retain(|one| one.key.as_str() == STATUS);
        add(&span.id(), fields, &context);
    }

    fn on_close(&self, id: Id, context: InSubscriber<'_, S>) {
        if let Some(span) = context.span(&id)
            && let Some(own) = span.extensions().get::<Context>()
        {
            own.span().end();
        }
    }
}

fn add<S>(id: &Id, fields: Fields, context: &InSubscriber<'_, S>)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    if let Some(span) = context.span(id)
        && let Some(own) = span.extensions().get::<Context>()
    {
        own.span().set_attributes(fields.attributes);
    }
}

fn remote(parent: SpanContext) -> Context {
    Context::new().with_remote_span_context(parent)
}

/// The fields of a span.
#[derive(Default)]
struct Fields {
    attributes: Vec<KeyValue>,
    parent: Option<SpanContext>,
}

/// OpenTelemetry's names of what ours are called otherwise.
const STATUS: &str = "http.response.status_code";
const METHOD: &str = "http.request.method";
const ROUTE: &str = "http.route";

impl Fields {
    /// Returns the name of a call: its method and its route.
    fn name(&self) -> Option<String> {
        let value = |key: &str| self.attributes.iter().find(|one| one.key.as_str() == key);
        let (method, route) = (value(METHOD)?, value(ROUTE)?);
        Some(format!("{} {}", method.value, route.value))
    }

    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        let key = match field.name() {
            "http.status" => STATUS,
            "http.method" => METHOD,
            // What is said, and not of what.
            "message" => return,
            other => other,
        };
        self.attributes.push(KeyValue::new(key, value));
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "traceparent" => self.parent = parsed(value),
            _ => self.add(field, value.to_owned()),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, i64::try_from(value).unwrap_or(i64::MAX));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }
}

/// Reads a `traceparent` (W3C Trace Context, version 00). What is malformed is no parent.
fn parsed(text: &str) -> Option<SpanContext> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lengths = [version, trace, span, flags].map(str::len);
    if version != "00" || lengths != [2, 32, 16, 2] || parts.next().is_some() {
        return None;
    }
    let flags = u8::from_str_radix(flags, 16).ok()?;
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(flags) & TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_and_what_is_malformed_is_none() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        for (flags, sampled) in [("00", false), ("01", true), ("03", true)] {
            let context = parsed(&format!("00-{trace}-{span}-{flags}")).unwrap();
            assert_eq!(context.trace_id().to_string(), trace);
            assert_eq!(context.span_id().to_string(), span);
            assert_eq!(context.is_sampled(), sampled);
        }
        for wrong in [
            String::new(),
            format!("01-{trace}-{span}-01"),
            format!("00-{trace}-{span}-01-more"),
            format!("00-{trace}-{span}-zz"),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
        ] {
            assert!(parsed(&wrong).is_none(), "{wrong}");
        }
    }
}
