//! Rules of faults on purpose: a share of none makes nothing fail, which is Istio's default and rarely meant.

use super::{at_least_one, at_most_one};
use crate::codes;
use crate::decode::Decoder;
use crate::istio::{HttpFaultAbort, HttpFaultDelay, HttpFaultInjection};

pub(crate) fn http_fault(fault: &HttpFaultInjection, decoder: &mut Decoder) {
    at_least_one(decoder, &[("delay", fault.delay.is_some()), ("abort", fault.abort.is_some())]);
}

pub(crate) fn http_fault_delay(delay: &HttpFaultDelay, decoder: &mut Decoder) {
    if delay.fixed_delay.is_none() {
        no_use(decoder, "no request waits, since the delay has no `fixedDelay`", "say how long");
    } else if delay.percentage.is_none() && delay.percent.is_none() {
        no_use(decoder, "no request waits, since the delay has no `percentage`", SAY_SHARE);
    }
}

pub(crate) fn http_fault_abort(abort: &HttpFaultAbort, decoder: &mut Decoder) {
    let codes = [("httpStatus", abort.http_status.is_some()), ("grpcStatus", abort.grpc_status.is_some())];
    at_most_one(decoder, &codes);
    if codes.iter().all(|(_, set)| !set) {
        no_use(
            decoder,
            "no request fails, since the abort has no status",
            "say `httpStatus` or `grpcStatus`",
        );
    } else if abort.percentage.is_none() {
        no_use(decoder, "no request fails, since the abort has no `percentage`", SAY_SHARE);
    }
}

const SAY_SHARE: &str = "write `percentage: {value: 100}` for all requests";

fn no_use(decoder: &mut Decoder, message: &str, help: &str) {
    decoder.report_below("", &codes::NO_USE, message.to_owned(), help);
}
