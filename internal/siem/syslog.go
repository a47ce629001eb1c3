// SPDX-License-Identifier: Apache-2.0

package siem

import (
	"strconv"
	"strings"

	"github.com/medirecord/medirecord/internal/audit"
)

// SyslogMessage is the longest message that we send. Receivers should take 8192
// bytes (RFC 5425, 4.3.1); rsyslog, as it comes, takes 8096 and cuts the rest.
const SyslogMessage = 8000

// Enterprise is the SD-ID of our structured data. 32473 is the number that
// RFC 5612 sets aside for those who have none of their own.
const Enterprise = "medirecord@32473"

// Severities of RFC 5424, table 2; the facility is authpriv (10).
const (
	facility = 10 << 3
	alert    = 1
	failing  = 3
	warning  = 4
	notice   = 5
)

// Syslog returns the event as one RFC 5424 message of at most SyslogMessage
// bytes. Its structured data carries the stable ids: event, epoch and leaf. The message
// is ASCII whatever the entry holds, so that it needs no byte order mark, and
// has no control character, so that no receiver can take it for two.
func Syslog(src Source, f Format, e *Event) []byte {
	head := make([]byte, 0, SyslogMessage/4)
	head = append(head, '<')
	head = strconv.AppendInt(head, int64(priority(f, e)), 10)
	head = append(head, ">1 "...)
	head = e.OccurredAt.UTC().AppendFormat(head, "2006-01-02T15:04:05.000Z")
	head = append(head, ' ')
	head = append(head, header(src.Host, 255)...)
	head = append(head, " medirecord - "...)
	head = append(head, msgID(f)...)
	head = append(head, " ["...)
	head = append(head, Enterprise...)
	for _, p := range [][2]string{
		{"event", string(e.ID)},
		{"epoch", strconv.Itoa(int(e.Epoch))},
		{"leaf", strconv.FormatInt(e.Index, 10)},
		{"action", word(e.Action, "other")},
		{"outcome", word(string(e.Outcome), "other")},
		{"break_glass", strconv.FormatBool(e.Detail.BreakGlass != nil)},
	} {
		head = append(head, ' ')
		head = append(head, p[0]...)
		head = append(head, `="`...)
		head = append(head, param(p[1])...)
		head = append(head, '"')
	}
	head = append(head, "] "...)
	return append(head, f.encode(src, e, SyslogMessage-len(head))...)
}

// Frame puts a message into octet counting, RFC 5425 section 4.3.
func Frame(out, msg []byte) []byte {
	out = strconv.AppendInt(out, int64(len(msg)), 10)
	out = append(out, ' ')
	return append(out, msg...)
}

func priority(f Format, e *Event) int {
	switch {
	case f == ATNA:
		return facility + notice // as IHE ITI-20 has it
	case e.Outcome == audit.AccessGranted:
		return facility + alert // an emergency override: somebody looks at once
	case e.Outcome == audit.Denied:
		return facility + warning
	case e.Outcome == audit.Failure:
		return facility + failing
	}
	return facility + notice
}

func msgID(f Format) string {
	switch f {
	case ATNA:
		return "DICOM+RFC3881"
	case FHIR:
		return "FHIR+AuditEvent"
	default:
		return "AUDIT"
	}
}

// header is a field of the header: printable ASCII without spaces, RFC 5424
// section 6, or the nil value.
func header(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r <= 0x20 || r >= 0x7f {
			return -1
		}
		return r
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), most)]
}

// param escapes the value of a parameter, RFC 5424 section 6.3.3, and replaces
// what is not printable ASCII: in this place stand ids and words only.
func param(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case i >= 128:
			return b.String()
		case r == '"' || r == '\\' || r == ']':
			b.WriteByte('\\')
			b.WriteByte(byte(r))
		case r < 0x20 || r >= 0x7f:
			b.WriteByte('?')
		default:
			b.WriteByte(byte(r))
		}
	}
	return b.String()
}
