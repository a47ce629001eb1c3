// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

// raw sends the bytes as they are and returns what comes back.
func raw(t *testing.T, url, request string) reply {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header, string(b)}
}

const mark = "Zq7marker"

func TestHostileRequests(t *testing.T) {
	t.Parallel()
	const auth = "Authorization: Bearer clinician\r\n"
	get := func(target string, headers ...string) string {
		return "GET " + target + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + auth + strings.Join(headers, "") + "\r\n"
	}
	post := func(target, body string) string {
		return "POST " + target + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + auth + "Content-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
	}
	field := func(pointer, reason string) string {
		return fmt.Sprintf(`"errors":[{"pointer":%q,"reason":%q}]`, pointer, reason)
	}
	tests := []struct {
		name, request string
		status        int
		part          string
	}{
		{"an encoded slash is part of an illegal id", get("/patients/p-001%2Faudit"), 422, field("id", "1 to 64 letters, digits, dots and hyphens")},
		{"a double-encoded slash too", get("/patients/p-001%252Faudit"), 422, field("id", "1 to 64 letters, digits, dots and hyphens")},
		{"dots do not climb", get("/patients/../patients/p-001"), 404, `"code":"not_found"`},
		{"encoded dots do not climb", get("/patients/%2e%2e/%2e%2e/etc"), 404, `"code":"not_found"`},
		{"two slashes are another path", get("//patients/p-001"), 404, `"code":"not_found"`},
		{"a slash too many is another path", get("/patients/p-001/"), 404, `"code":"not_found"`},
		{"letters may not be disguised", get("/%70atients/p-001"), 404, `"code":"not_found"`},
		{"case matters", get("/Patients/p-001"), 404, `"code":"not_found"`},
		{"a NUL in an id", get("/patients/p%00"), 422, `"pointer":"id"`},
		{"a line end in an id", get("/patients/p%0d%0aX-Evil:%20" + mark), 422, `"pointer":"id"`},
		{"a quote in an id", get("/patients/p'%20or%201=1--" + mark), 422, `"pointer":"id"`},
		{"an id too long", get("/patients/" + strings.Repeat("a", 65)), 422, `"pointer":"id"`},
		{"bytes that are not UTF-8 in an id", get("/patients/%ff%fe"), 422, `"pointer":"id"`},
		{"a bad escape", get("/patients/%zz"), 400, `"code":"malformed"`},
		{"an unknown query parameter", get("/patients/p-001?" + mark + "=1"), 422, field("query", "unknown parameter")},
		{"several, once", get("/patients/p-001?" + mark + "=1&b" + mark + "=2"), 422, field("query", "unknown parameter")},
		{"a parameter twice", get("/patients/p-001/audit?limit=1&limit=2"), 422, field("limit", "given more than once")},
		{"an unknown parameter twice", get("/patients/p-001/audit?" + mark + "=1&" + mark + "=2"), 422, field("query", "given more than once")},
		{"a parameter in disguise", get("/patients/p-001/audit?limit=1&%6cimit=2"), 422, field("limit", "given more than once")},
		{"another case of a parameter", get("/patients/p-001/audit?LIMIT=1"), 422, field("query", "unknown parameter")},
		{"a semicolon", get("/patients/p-001/audit?limit=1;limit=200"), 422, field("query", "not readable")},
		{"a bad escape in the query", get("/patients/p-001/audit?limit=%zz" + mark), 422, field("query", "not readable")},
		{"an empty limit", get("/patients/p-001/audit?limit="), 422, field("limit", "empty")},
		{"no limit at all", get("/patients/p-001/audit?limit"), 422, field("limit", "empty")},
		{"a limit of words", get("/patients/p-001/audit?limit=" + mark), 422, field("limit", "not an integer")},
		{"a limit of nothing", get("/patients/p-001/audit?limit=0"), 422, field("limit", "at least 1")},
		{"a limit below nothing", get("/patients/p-001/audit?limit=-5"), 422, field("limit", "at least 1")},
		{"a limit too high", get("/patients/p-001/audit?limit=201"), 422, field("limit", "at most 200")},
		{"a limit out of range", get("/patients/p-001/audit?limit=99999999999999999999"), 422, field("limit", "not an integer")},
		{"a limit turned round", get("/patients/p-001/audit?limit=%E2%80%AE5"), 422, field("limit", "control or direction characters, or not UTF-8")},
		{"two reasons", get("/patients/p-001", "X-Break-Glass-Reason: a "+mark+"\r\nx-break-glass-reason: b\r\n"), 422, field("X-Break-Glass-Reason", "given more than once")},
		{"two purposes", get("/patients/p-001", "X-Purpose-Of-Use: TREAT\r\nX-Purpose-Of-Use: TREAT\r\n"), 422, field("X-Purpose-Of-Use", "given more than once")},
		{"a made-up purpose", get("/patients/p-001", "X-Purpose-Of-Use: "+mark+"\r\n"), 422, field("X-Purpose-Of-Use", "not one of the allowed values")},
		{"a purpose in lower case", get("/patients/p-001", "X-Purpose-Of-Use: treat\r\n"), 422, field("X-Purpose-Of-Use", "not one of the allowed values")},
		{"a blank purpose", get("/patients/p-001", "X-Purpose-Of-Use:\r\n"), 422, field("X-Purpose-Of-Use", "not one of the allowed values")},
		{"a time of a zone a day away, in a query", get("/api/v1/audit/logs?from=2026-03-01T08:30:00%2B24:00"), 422, field("from", "not a time of RFC 3339")},
		{
			"a time of a zone a day away",
			post("/api/v1/appointments", `{"patient_id":"p-001","issuer":"i","subject":"s","from":"2026-03-01T08:30:00Z","to":"2026-03-01T08:30:00+24:00"}`), 422, field("/to", "not a time of RFC 3339"),
		},
		{"a blank key", get("/patients/p-001", "Idempotency-Key: \t \r\n"), 422, field("Idempotency-Key", "1 to 255 visible ASCII characters")},
		{"two tokens", get("/patients/p-001", "Authorization: Bearer other\r\n"), 401, "Valid JWT required."},
		{"a body on GET", get("/patients/p-001", "Content-Length: 2\r\n") + "{}", 422, "This method takes no body."},
		{"a chunked body on GET", get("/patients/p-001", "Transfer-Encoding: chunked\r\n") + "2\r\n{}\r\n0\r\n\r\n", 422, "This method takes no body."},
		{"a body too large", get("/patients/p-001", "Content-Length: 1048577\r\n"), 422, "This method takes no body."},
		{"headers too large", get("/patients/p-001", "X-A: "+strings.Repeat("a", 40<<10)+"\r\n"), 431, `"code":"headers_too_large"`},
		{"a smuggled length", get("/patients/p-001", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n", 422, "This method takes no body."},
		{"two lengths", get("/patients/p-001", "Content-Length: 1\r\nContent-Length: 2\r\n"), 400, `"code":"malformed"`},
		{"an unknown coding", get("/patients/p-001", "Transfer-Encoding: "+mark+"\r\n"), 400, `"code":"malformed"`},
		{"an unknown expectation", get("/patients/p-001", "Expect: "+mark+"\r\n"), 400, `"code":"malformed"`},
		{"a bad header", get("/patients/p-001", mark+" : x\r\n"), 400, `"code":"malformed"`},
		{"another protocol", mark + "\r\n\r\n", 400, `"code":"malformed"`},
		{"another version", strings.Replace(get("/patients/p-001"), "HTTP/1.1", "HTTP/3.1", 1), 400, `"code":"malformed"`},
		{"no host", strings.Replace(get("/patients/p-001"), "Host: x\r\n", "", 1), 400, `"code":"malformed"`},
		{"no such path", get("/" + mark), 404, `"code":"not_found"`},
		{"a path of dots", get("/."), 404, `"code":"not_found"`},
		{"another method", strings.Replace(get("/patients/p-001"), "GET", "DELETE", 1), 405, `"code":"method_not_allowed"`},
		{"a made-up method", strings.Replace(get("/patients/p-001"), "GET", mark, 1), 405, `"code":"method_not_allowed"`},
		{"an override of the method is no method", get("/patients/p-001", "X-HTTP-Method-Override: DELETE\r\n"), 200, ""},
		{"OPTIONS of everything", "OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404, `"code":"not_found"`},
		{"an absolute target is its path", get("http://" + mark + ".example/patients/p-001"), 200, ""},
		{"a favourite format changes nothing", get("/patients/p-001", "Accept: json, text/html;q=0."+mark+"\r\n"), 200, ""},
	}
	h := newHouse(t)
	srv := httptest.NewUnstartedServer(nil)
	srv.Config, srv.Listener = h.HTTPServer(t.Context(), h), h.Listener(srv.Listener)
	srv.Start()
	t.Cleanup(srv.Close)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := raw(t, srv.URL, test.request)
			if got.status != test.status || !strings.Contains(got.body, test.part) {
				t.Errorf("got %d %s\nwant %d … %s", got.status, got.body, test.status, test.part)
			}
			if all := fmt.Sprint(got.header, got.body); strings.Contains(all, mark) {
				t.Error("the answer repeats what was sent: " + all)
			}
			if got.header.Get("X-Request-Id") == "" || got.header.Get("Cache-Control") != "no-store" {
				t.Errorf("headers: %v", got.header)
			}
			if want := map[bool]string{true: "application/json", false: "application/problem+json"}[got.status == 200]; got.header.Get("Content-Type") != want {
				t.Errorf("Content-Type: %q", got.header.Get("Content-Type"))
			}
			if got.status == 405 && got.header.Get("Allow") != "GET" {
				t.Errorf("Allow: %q", got.header.Get("Allow"))
			}
		})
	}
	if strings.Contains(h.log.String(), mark) {
		t.Error("the log repeats what was sent: " + h.log.String())
	}
	if strings.Contains(metricsText(t, h), mark) {
		t.Error("the metrics repeat what was sent")
	}
}

func metricsText(t *testing.T, h *house) string {
	t.Helper()
	w := httptest.NewRecorder()
	h.Ops().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

// Whatever a client sends, wherever: it comes back nowhere, whoever refuses.
func TestNothingIsRepeated(t *testing.T) {
	t.Parallel()
	places := map[string]func(*http.Request){
		"path":       func(r *http.Request) { r.URL.Path = "/patients/" + mark + "_" },
		"legal id":   func(r *http.Request) { r.URL.Path = "/patients/" + mark },
		"no route":   func(r *http.Request) { r.URL.Path = "/" + mark },
		"query key":  func(r *http.Request) { r.URL.RawQuery = mark + "=1" },
		"query":      func(r *http.Request) { r.URL.RawQuery = "limit=" + mark },
		"method":     func(r *http.Request) { r.Method = mark },
		"user":       func(r *http.Request) { r.URL.RawQuery = "?" + mark },
		"everything": func(r *http.Request) { r.URL.Path, r.URL.RawQuery = "/patients/"+mark+"/audit", mark+"="+mark },
	}
	headers := []string{
		"Authorization", "X-Break-Glass-Reason", "X-Purpose-Of-Use", "X-Request-Id", "User-Agent", "Origin", "Referer", "Accept", "Cookie",
		"Traceparent", "X-Forwarded-For", "X-Forwarded-Prefix", "X-Forwarded-Host", "If-None-Match", "Idempotency-Key", "Accept-Encoding", "Range", "Expect-Ct",
	}
	for _, name := range headers {
		places["header "+name] = func(r *http.Request) { r.Header.Set(name, mark) }
		places["twice "+name] = func(r *http.Request) { r.Header[name] = []string{mark, mark} }
	}
	outcomes := map[string]func(*house){
		"served":  func(*house) {},
		"refused": func(h *house) { h.auth.err = med.Unauthorized.New("") },
		"denied": func(h *house) {
			h.chart.read = func(context.Context, med.Caller, med.PatientID, ...med.Field) (*med.PatientView, error) {
				return nil, med.Forbidden.New("Patients may only access their own records.")
			}
		},
		"broken": func(h *house) {
			h.chart.read = func(_ context.Context, c med.Caller, id med.PatientID, _ ...med.Field) (*med.PatientView, error) {
				return nil, fmt.Errorf("no row for %s (%s)", id, c.Origin.UserAgent)
			}
		},
		"panic": func(h *house) {
			h.chart.read = func(_ context.Context, c med.Caller, id med.PatientID, _ ...med.Field) (*med.PatientView, error) {
				panic(fmt.Sprint(id, c.Emergency.Reveal(), mark))
			}
		},
	}
	for outcome, arrange := range outcomes {
		t.Run(outcome, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			arrange(h)
			for place, put := range places {
				for _, path := range []string{"/patients/p-001", "/patients/p-001/audit", "/docs", "/openapi.json", "/docs/swagger-ui.css", "/none"} {
					r := httptest.NewRequest(http.MethodGet, path, nil)
					r.Header.Set("Authorization", "Bearer clinician")
					put(r)
					w := httptest.NewRecorder()
					h.ServeHTTP(w, r)
					if strings.Contains(w.Body.String()+fmt.Sprint(w.Header()), mark) {
						t.Errorf("%s of %s: repeated in %v %s", place, path, w.Header(), w.Body)
					}
				}
			}
			if strings.Contains(h.log.String(), mark) {
				t.Error("repeated in the log")
			}
			if strings.Contains(metricsText(t, h), mark) {
				t.Error("repeated in the metrics")
			}
			if h.log.String() == "" {
				t.Error("nothing was logged, so nothing was tried")
			}
		})
	}
}

func TestAPanicDisclosesNothing(t *testing.T) {
	t.Parallel()
	type secret struct{ SSN string }
	for name, arrange := range map[string]func(*house){
		"in the chart": func(h *house) {
			h.chart.read = func(context.Context, med.Caller, med.PatientID, ...med.Field) (*med.PatientView, error) {
				panic(secret{"123-45-6789"})
			}
		},
		"in the authenticator": func(h *house) { h.auth.boom = secret{"123-45-6789"} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			arrange(h)
			got := ask(t, "GET", h.start(t)+"/patients/p-001", "Cookie", "session=123-45-6789")
			wantProblem(t, got, `{"type":"https://medirecord.example/errors/internal","title":"Internal Server Error","status":500,`+
				`"detail":"Something went wrong here. Nothing was disclosed. Quote the reference.","instance":"urn:uuid:`+requestID+`","code":"internal","hipaa_category":"none"}`)
			log := h.log.String()
			for _, want := range []string{`"msg":"panic"`, requestID, `"type":"httpapi.secret"`, "httpapi.(*Server).ServeHTTP:", `"status":500`} {
				if !strings.Contains(log, want) {
					t.Errorf("the log lacks %s: %s", want, log)
				}
			}
			if strings.Contains(log, "6789") || strings.Contains(log, "0x") || strings.Contains(log, "Bearer") {
				t.Error("the log holds values: " + log)
			}
			if !strings.Contains(metricsText(t, h), "medirecord_http_panics_total 1") {
				t.Error("the panic was not counted")
			}
		})
	}
}

// brokenPipe is a client that takes the headers and no more.
type brokenPipe struct{ *httptest.ResponseRecorder }

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe to 192.0.2.1") }

func TestAnAnswerCutOffIsNotMadeWhole(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	r := httptest.NewRequest(http.MethodGet, "/patients/p-001", nil)
	r.Header.Set("Authorization", "Bearer clinician")
	defer func() {
		if v := recover(); v != http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
			t.Errorf("got %v, want the connection aborted", v)
		}
		if log := h.log.String(); strings.Contains(log, "192.0.2.1") || !strings.Contains(log, `"msg":"request"`) {
			t.Error("log: " + log)
		}
	}()
	h.ServeHTTP(brokenPipe{httptest.NewRecorder()}, r)
}

func TestAClientThatHangsUp(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	asked, done := make(chan struct{}), make(chan struct{})
	h.chart.read = func(ctx context.Context, _ med.Caller, _ med.PatientID, _ ...med.Field) (*med.PatientView, error) {
		close(asked)
		<-ctx.Done() // the room tells the chart; what the chart still has to write is its own affair
		return nil, fmt.Errorf("reading: %w", ctx.Err())
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	ctx, hangUp := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/patients/p-001", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer clinician")
	go func() {
		select {
		case <-asked:
		case <-done: // refused before the chart was asked; the assertions say so
		}
		hangUp()
	}()
	if res, err := http.DefaultClient.Do(req); err == nil {
		_ = res.Body.Close()
		t.Fatal("an answer came")
	}
	<-done
	if log := h.log.String(); !strings.Contains(log, `"status":499`) || strings.Contains(log, `"level":"ERROR"`) {
		t.Error("want one line with 499, and no failure: " + log)
	}
}

func TestADeadlineEndsTheRequest(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *Config) { c.Timeout = time.Millisecond })
	h.chart.read = func(ctx context.Context, _ med.Caller, _ med.PatientID, _ ...med.Field) (*med.PatientView, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if got := ask(t, "GET", h.start(t)+"/patients/p-001"); got.status != 500 {
		t.Errorf("got %d", got.status)
	}
}

func TestSlowClientsLoseTheirConnection(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	s := h.HTTPServer(t.Context(), h)
	if s.ReadHeaderTimeout <= 0 || s.ReadTimeout <= 0 || s.WriteTimeout <= 0 || s.IdleTimeout <= 0 || s.MaxHeaderBytes != 32<<10 {
		t.Errorf("a wait has no end: %+v", s)
	}
	s.ReadHeaderTimeout = 20 * time.Millisecond
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = s
	srv.Start()
	t.Cleanup(srv.Close)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "GET /patients/p-001 HTTP/1.1\r\nHost: "); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("the connection was not closed: %v", err)
	}
}

func TestWhatNetHTTPLogsIsOneWord(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	l := h.HTTPServer(t.Context(), h).ErrorLog
	l.Print("http: TLS handshake error from 192.0.2.7:1234: " + mark)
	l.Print(mark)
	log := h.log.String()
	if strings.Contains(log, mark) || strings.Contains(log, "192.0.2.7") {
		t.Error("repeated: " + log)
	}
	if !strings.Contains(log, `"trouble":"tls handshake failed"`) || !strings.Contains(log, `"trouble":"other"`) {
		t.Error(log)
	}
}

// Every route but those opened by name refuses without a caller.
func TestRoutesNeedACaller(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.auth.err = med.Unauthorized.New("")
	want := []string{"/docs", "/docs/docs.css", "/docs/docs.js", "/docs/favicon.png", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/openapi.json"}
	var opened []string
	for _, route := range h.router.engine.Routes() {
		path := strings.ReplaceAll(route.Path, ":id", "p-001")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(route.Method, path, nil))
		switch {
		case w.Code == http.StatusOK:
			opened = append(opened, route.Path)
		case w.Code == http.StatusMethodNotAllowed: // reaches no handler of ours
		case w.Code != http.StatusUnauthorized:
			t.Errorf("%s %s: got %d, want 401", route.Method, path, w.Code)
		}
		if h.router.open[route.Path] != (w.Code == http.StatusOK) {
			t.Errorf("%s: open is not what it says", path)
		}
	}
	slices.Sort(opened)
	if !slices.Equal(opened, want) {
		t.Errorf("open: got %v, want %v", opened, want)
	}
	if n := h.chart.times(); n != 0 {
		t.Errorf("the chart was asked %d times", n)
	}
}

// A handler reached around the guard still finds no caller.
func TestHandleRefusesWithoutACaller(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	r := httptest.NewRequest(http.MethodGet, "/patients/p-001", nil)
	w := httptest.NewRecorder()
	r.Header.Set("Authorization", "Bearer clinician")
	h.router.ServeHTTP(w, r) // not through the room's ServeHTTP: whoever was admitted, handle cannot know
	if n := h.chart.times(); n != 0 {
		t.Errorf("the chart was asked %d times", n)
	}
	if w.Code != http.StatusUnauthorized {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestEveryAnswerHasTheHeaders(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	url := h.start(t)
	for _, path := range []string{"/patients/p-001", "/patients/_", "/none", "/docs", "/docs/swagger-ui-bundle.js", "/openapi.json"} {
		for _, token := range []string{"clinician", ""} {
			got := askAs(t, token, "GET", url+path, nil)
			want := map[string]string{
				"X-Request-Id": requestID, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
				"Referrer-Policy": "no-referrer", "Strict-Transport-Security": "max-age=63072000; includeSubDomains",
			}
			for k, v := range want {
				if values := got.header.Values(k); len(values) != 1 || values[0] != v {
					t.Errorf("%s %s: got %q, want %q", path, k, values, v)
				}
			}
			csp := got.header.Get("Content-Security-Policy")
			if !strings.HasPrefix(csp, "default-src 'none';") || strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") {
				t.Errorf("%s: CSP %q", path, csp)
			}
			if got.header.Get("Server") != "" || got.header.Get("Access-Control-Allow-Origin") != "" || got.header.Get("Set-Cookie") != "" {
				t.Errorf("%s: %v", path, got.header)
			}
		}
	}
}

func FuzzRequest(f *testing.F) {
	f.Add("/patients/p-001", "limit=1", "Accept", "json")
	f.Add("/patients/p-001/audit", "limit=1&limit=2", "X-Break-Glass-Reason", "x")
	f.Add("/patients/%2e%2e/audit", "%zz", "Traceparent", "00-")
	f.Add("*", ";", "X-Forwarded-For", "10.0.0.1,,")
	f.Add("http://h/docs", "", "Accept-Encoding", "gzip;q=0")
	h := newHouse(f)
	f.Fuzz(func(t *testing.T, path, query, name, value string) {
		request := "GET " + path + "?" + query + mark + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer clinician\r\nX-Request-Id: " + mark + "\r\n" +
			name + ": " + value + mark + "\r\n\r\n"
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewBufferString(request)))
		if err != nil {
			return
		}
		r = r.WithContext(t.Context())
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 500 || w.Code == 0 {
			t.Fatalf("%q: %d %s", request, w.Code, w.Body)
		}
		if w.Code >= 300 && w.Code < 400 {
			t.Fatalf("%q: redirected to %q", request, w.Header().Get("Location"))
		}
		if strings.Contains(w.Body.String()+fmt.Sprint(w.Header()), mark) {
			t.Fatalf("%q: repeated in %v %s", request, w.Header(), w.Body)
		}
		if strings.Contains(h.log.String(), mark) {
			t.Fatalf("%q: repeated in the log", request)
		}
		h.log.mu.Lock()
		h.log.b.Reset()
		h.log.mu.Unlock()
	})
}
