// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/medirecord/medirecord/internal/med"
)

const (
	maxClientID = 128
	// A list of proxies longer than this is an attack on our time, not a route.
	maxHops = 32
)

// originOf returns where the request came from, for the trail: the client's own
// words as they are, the address by the trusted-proxy rule.
func originOf(r *http.Request, id string, trusted []netip.Prefix) med.Origin {
	return med.Origin{
		IP:        clientIP(r.RemoteAddr, r.Header.Values("X-Forwarded-For"), trusted),
		UserAgent: r.UserAgent(),
		Origin:    r.Header.Get("Origin"),
		RequestID: id,
		ClientID:  capped(r.Header.Get(headerRequest), maxClientID),
		TraceID:   traceID(r.Header.Values("Traceparent")),
	}
}

func capped(s string, n int) string {
	if len(s) > n {
		return strings.Clone(s[:n])
	}
	return s
}

// clientIP returns the address of the socket unless that is a trusted proxy,
// then the right-most hop of X-Forwarded-For that is not one: whatever stands
// left of it is the client's own claim. A hop that is no address ends the list,
// and the last proxy that we do know is named. "" when the socket has no address.
func clientIP(socket string, forwarded []string, trusted []netip.Prefix) string {
	ap, err := netip.ParseAddrPort(socket)
	if err != nil {
		return ""
	}
	at, left := bare(ap.Addr()), maxHops
	for line := len(forwarded) - 1; line >= 0; line-- {
		for rest, more := forwarded[line], true; more; {
			if left == 0 || !within(trusted, at) {
				return at.String()
			}
			left--
			var hop string
			rest, hop, more = lastHop(rest)
			next, ok := parseHop(hop)
			if !ok {
				return at.String()
			}
			at = next
		}
	}
	return at.String()
}

// lastHop splits off what stands right of the last comma.
func lastHop(list string) (rest, hop string, more bool) {
	if i := strings.LastIndexByte(list, ','); i >= 0 {
		return list[:i], strings.Trim(list[i+1:], " \t"), true
	}
	return "", strings.Trim(list, " \t"), false
}

// parseHop reads an address, with a port as some proxies write it.
func parseHop(s string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(s); err == nil {
		return bare(a), true
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return bare(ap.Addr()), true
	}
	return netip.Addr{}, false
}

// bare makes one address of its spellings: ::ffff:10.0.0.1 is 10.0.0.1, and a
// zone is the sender's business.
func bare(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

func within(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// traceID returns the trace id of a W3C traceparent, or "" when there is not
// exactly one well-formed header.
func traceID(headers []string) string {
	if len(headers) != 1 {
		return ""
	}
	h := headers[0]
	// version-traceid-parentid-flags: 2, 32, 16 and 2 lower-case hex digits.
	if len(h) < 55 || h[2] != '-' || h[35] != '-' || h[52] != '-' {
		return ""
	}
	version, trace, parent, flags := h[:2], h[3:35], h[36:52], h[53:55]
	if !lowerHex(version) || !lowerHex(trace) || !lowerHex(parent) || !lowerHex(flags) {
		return ""
	}
	tooLong := len(h) > 55 && (version == "00" || h[55] != '-')
	if version == "ff" || tooLong || zeros(trace) || zeros(parent) {
		return ""
	}
	return strings.Clone(trace)
}

func lowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func zeros(s string) bool { return strings.Trim(s, "0") == "" }
