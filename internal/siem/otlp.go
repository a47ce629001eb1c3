// SPDX-License-Identifier: Apache-2.0

package siem

import (
	"encoding/hex"
	"strings"

	collector "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	common "go.opentelemetry.io/proto/slim/otlp/common/v1"
	logs "go.opentelemetry.io/proto/slim/otlp/logs/v1"
	resource "go.opentelemetry.io/proto/slim/otlp/resource/v1"
	"google.golang.org/protobuf/proto"

	"github.com/medirecord/medirecord/internal/audit"
)

// OTLP returns the events as the protobuf of one ExportLogsServiceRequest,
// for POST to a collector's /v1/logs.
func OTLP(src Source, f Format, events []Event) ([]byte, error) {
	records := make([]*logs.LogRecord, len(events))
	for i := range events {
		records[i] = logRecord(src, f, &events[i])
	}
	return proto.Marshal(&collector.ExportLogsServiceRequest{ResourceLogs: []*logs.ResourceLogs{{
		Resource:  &resource.Resource{Attributes: []*common.KeyValue{attribute("service.name", "medirecord"), attribute("host.name", printable(src.Host))}},
		ScopeLogs: []*logs.ScopeLogs{{Scope: &common.InstrumentationScope{Name: "medirecord/audit"}, LogRecords: records}},
	}}})
}

// Rejected reads a collector's answer: how many of the records it did not
// take, although it said 200.
func Rejected(answer []byte) (int64, error) {
	var a collector.ExportLogsServiceResponse
	if err := proto.Unmarshal(answer, &a); err != nil {
		return 0, err
	}
	return a.GetPartialSuccess().GetRejectedLogRecords(), nil
}

func logRecord(src Source, f Format, e *Event) *logs.LogRecord {
	r := &logs.LogRecord{
		TimeUnixNano: uint64(e.OccurredAt.UnixNano()), ObservedTimeUnixNano: uint64(e.RecordedAt.UnixNano()),
		EventName: "medirecord.audit", Body: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: string(f.Encode(src, e))}},
		Attributes: []*common.KeyValue{
			attribute("medirecord.audit.event_id", printable(string(e.ID))), number("medirecord.audit.epoch", int64(e.Epoch)), number("medirecord.audit.leaf", e.Index),
			attribute("medirecord.audit.action", word(e.Action, "other")), attribute("medirecord.audit.outcome", word(string(e.Outcome), "other")),
			attribute("medirecord.audit.format", string(f)),
		},
	}
	r.SeverityNumber, r.SeverityText = severity(e)
	if id, err := hex.DecodeString(e.Detail.TraceID); err == nil && len(id) == 16 {
		r.TraceId = id
	}
	return r
}

func severity(e *Event) (logs.SeverityNumber, string) {
	switch e.Outcome {
	case audit.Success:
		return logs.SeverityNumber_SEVERITY_NUMBER_INFO, "INFO"
	case audit.AccessGranted, audit.Denied:
		return logs.SeverityNumber_SEVERITY_NUMBER_WARN, "WARN"
	default:
		return logs.SeverityNumber_SEVERITY_NUMBER_ERROR, "ERROR"
	}
}

func attribute(name, value string) *common.KeyValue {
	return &common.KeyValue{Key: name, Value: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: value}}}
}

func number(name string, n int64) *common.KeyValue {
	return &common.KeyValue{Key: name, Value: &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: n}}}
}

// printable keeps ASCII that prints: protobuf refuses invalid UTF-8, and an
// entry must not be able to stop its batch.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f {
			return '?'
		}
		return r
	}, s[:min(len(s), 255)])
}
