// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"net/netip"
	"strings"
	"testing"
)

func TestClientIP(t *testing.T) {
	t.Parallel()
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("127.0.0.1/32")}
	tests := []struct {
		name, socket string
		forwarded    []string
		want         string
	}{
		{"the socket, when nobody speaks for it", "203.0.113.9:1000", nil, "203.0.113.9"},
		{"a stranger's claim is worth nothing", "203.0.113.9:1000", []string{"198.51.100.1"}, "203.0.113.9"},
		{"a proxy without a claim is itself", "10.0.0.1:1000", nil, "10.0.0.1"},
		{"a proxy's claim counts", "10.0.0.1:1000", []string{"198.51.100.1"}, "198.51.100.1"},
		{"only the right-most stranger counts", "10.0.0.1:1000", []string{"1.1.1.1, 198.51.100.1"}, "198.51.100.1"},
		{"proxies behind proxies", "10.0.0.1:1000", []string{"1.1.1.1, 198.51.100.1, 10.2.2.2, 10.3.3.3"}, "198.51.100.1"},
		{"the last line is the nearest", "10.0.0.1:1000", []string{"1.1.1.1", "198.51.100.1"}, "198.51.100.1"},
		{"over two lines", "10.0.0.1:1000", []string{"1.1.1.1,198.51.100.1", "10.2.2.2"}, "198.51.100.1"},
		{"all of them proxies: the first", "10.0.0.1:1000", []string{"10.9.9.9, 10.2.2.2"}, "10.9.9.9"},
		{"a client that claims to be a proxy is believed no further", "10.0.0.1:1000", []string{"6.6.6.6, 10.9.9.9, 198.51.100.1"}, "198.51.100.1"},
		{"rubbish ends the list at who passed it on", "10.0.0.1:1000", []string{"198.51.100.1, unknown"}, "10.0.0.1"},
		{"rubbish behind a proxy", "10.0.0.1:1000", []string{"unknown, 10.2.2.2"}, "10.2.2.2"},
		{"a name is no address", "10.0.0.1:1000", []string{"localhost"}, "10.0.0.1"},
		{"an empty header", "10.0.0.1:1000", []string{""}, "10.0.0.1"},
		{"only commas", "10.0.0.1:1000", []string{",,,"}, "10.0.0.1"},
		{"spaces", "10.0.0.1:1000", []string{" \t198.51.100.1\t "}, "198.51.100.1"},
		{"another space is no space", "10.0.0.1:1000", []string{"198.51.100.1\u00a0"}, "10.0.0.1"},
		{"a port", "10.0.0.1:1000", []string{"198.51.100.1:4711"}, "198.51.100.1"},
		{"IPv6 with a port", "[fd00::1]:1000", []string{"[2001:db8::1]:4711"}, "2001:db8::1"},
		{"IPv6", "[2001:db8::9]:1000", []string{"1.1.1.1"}, "2001:db8::9"},
		{"IPv4 written as IPv6 is the same proxy", "[::ffff:10.0.0.1]:1000", []string{"198.51.100.1"}, "198.51.100.1"},
		{"IPv4 written as IPv6 in the list", "10.0.0.1:1000", []string{"198.51.100.1, ::ffff:10.2.2.2"}, "198.51.100.1"},
		{"a zone does not make a stranger", "[fd00::1%eth0]:1000", []string{"198.51.100.1"}, "198.51.100.1"},
		{"a zone in the list is dropped", "10.0.0.1:1000", []string{"fe80::1%evil"}, "fe80::1"},
		{"a leading zero is no address", "10.0.0.1:1000", []string{"010.1.1.1"}, "10.0.0.1"},
		{"a number is no address", "10.0.0.1:1000", []string{"3232235777"}, "10.0.0.1"},
		{"a quoted list is no address", "10.0.0.1:1000", []string{`"198.51.100.1"`}, "10.0.0.1"},
		{"a prefix is no address", "10.0.0.1:1000", []string{"198.51.100.0/24"}, "10.0.0.1"},
		{"a list without an end", "10.0.0.1:1000", []string{"6.6.6.6," + strings.Repeat("10.2.2.2,", 5000) + "10.2.2.2"}, "10.2.2.2"},
		{"a unix socket has no address", "@", []string{"198.51.100.1"}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := clientIP(test.socket, test.forwarded, trusted); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if got := clientIP(test.socket, test.forwarded, nil); strings.Contains(got, "198.51.100") || got == "6.6.6.6" {
				t.Errorf("with no proxy trusted: got %q", got)
			}
		})
	}
}

func FuzzClientIP(f *testing.F) {
	f.Add("10.0.0.1, unknown", "::1%a")
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	f.Fuzz(func(t *testing.T, a, b string) {
		got := clientIP("10.0.0.1:1", []string{a, b}, trusted)
		if _, err := netip.ParseAddr(got); err != nil || strings.Contains(got, "%") {
			t.Fatalf("%q is no address", got)
		}
		// The right-most hop decides unless it is a proxy: what stands left of it changes nothing.
		if ip, ok := parseHop("203.0.113.7"); ok && clientIP("10.0.0.1:1", []string{a, b, "203.0.113.7"}, trusted) != ip.String() {
			t.Fatal("a claim to the left was believed")
		}
	})
}

func TestTraceID(t *testing.T) {
	t.Parallel()
	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	const good = "00-" + trace + "-" + parent + "-01"
	tests := []struct {
		name    string
		headers []string
		want    string
	}{
		{"none", nil, ""},
		{"well formed", []string{good}, trace},
		{"a later version", []string{"cc-" + trace + "-" + parent + "-01-what"}, trace},
		{"a later version without more", []string{"01-" + trace + "-" + parent + "-00"}, trace},
		{"more than version 00 has", []string{good + "-what"}, ""},
		{"a later version run together", []string{"cc-" + trace + "-" + parent + "-01what"}, ""},
		{"version ff", []string{"ff" + good[2:]}, ""},
		{"two headers", []string{good, good}, ""},
		{"capitals", []string{strings.ToUpper(good)}, ""},
		{"no hex", []string{"00-" + strings.Repeat("g", 32) + "-" + parent + "-01"}, ""},
		{"no trace", []string{"00-" + strings.Repeat("0", 32) + "-" + parent + "-01"}, ""},
		{"no parent", []string{"00-" + trace + "-" + strings.Repeat("0", 16) + "-01"}, ""},
		{"too short", []string{good[:54]}, ""},
		{"blank", []string{""}, ""},
		{"other separators", []string{strings.ReplaceAll(good, "-", "_")}, ""},
		{"no hex in the flags", []string{good[:53] + "zz"}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := traceID(test.headers); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestTheClientsOwnIDIsCapped(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	url := h.start(t) + "/patients/p-001"
	ask(t, "GET", url, "X-Request-Id", strings.Repeat("a", 5000))
	if n := len(h.chart.last(t).Origin.ClientID); n != maxClientID {
		t.Errorf("got %d bytes", n)
	}
}
