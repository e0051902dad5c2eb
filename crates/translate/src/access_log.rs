//! The access log file with Istio's default line.
//!
//! Source: Istio "Getting Envoy's Access Logs", `accessLogFormat` default.

use meltemi_envoy::Any;
use meltemi_envoy::config::accesslog::v3::{AccessLog, access_log::ConfigType};
use meltemi_envoy::config::core::v3::{
    DataSource, SubstitutionFormatString, data_source::Specifier, substitution_format_string::Format,
};
use meltemi_envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log::AccessLogFormat};

/// Istio's default text format.
const FORMAT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" ",
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ",
    "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n",
);

/// The access logs of a connection manager or TCP proxy: one file, or none.
pub(crate) fn access_logs(file: Option<&str>) -> Vec<AccessLog> {
    let Some(path) = file else { return Vec::new() };
    let format = SubstitutionFormatString {
        format: Some(Format::TextFormatSource(DataSource {
            specifier: Some(Specifier::InlineString(FORMAT.to_owned())),
            ..Default::default()
        })),
        ..Default::default()
    };
    let log =
        FileAccessLog { path: path.to_owned(), access_log_format: Some(AccessLogFormat::LogFormat(format)) };
    vec![AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        config_type: Some(ConfigType::TypedConfig(Any::pack(&log))),
        ..Default::default()
    }]
}
