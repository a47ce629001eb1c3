// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"

	"github.com/swaggest/swgui/v5/static"
)

//go:embed page
var page embed.FS

// docsRoutes adds the contract and the page that shows it. The page comes whole
// out of the binary: no CDN, no inline script, no inline style.
func (s *Server) docsRoutes(r *router) error {
	spec, err := json.Marshal(r.api.OpenAPI())
	if err != nil {
		return fmt.Errorf("writing the contract: %w", err)
	}
	html, err := fs.ReadFile(page, "page/docs.html")
	if err != nil {
		return fmt.Errorf("opening the documentation page: %w", err)
	}
	if s.cfg.Dev {
		// Outside dev nobody should type a token, or an id, into a public page.
		html = bytes.Replace(html, []byte(`data-try=""`), []byte(`data-try="get"`), 1)
	}
	script, err := fs.ReadFile(page, "page/docs.js")
	if err != nil {
		return fmt.Errorf("opening the documentation script: %w", err)
	}
	style, err := fs.ReadFile(page, "page/docs.css")
	if err != nil {
		return fmt.Errorf("opening the documentation style: %w", err)
	}
	icon, err := fs.ReadFile(static.FS, "favicon-32x32.png")
	if err != nil {
		return fmt.Errorf("opening the documentation icon: %w", err)
	}
	r.openRoute("/openapi.json", plain("application/json", spec))
	r.openRoute("/docs", plain("text/html; charset=utf-8", html))
	r.openRoute("/docs/docs.js", plain("text/javascript; charset=utf-8", script))
	r.openRoute("/docs/docs.css", plain("text/css; charset=utf-8", style))
	r.openRoute("/docs/favicon.png", plain("image/png", icon))
	for name, kind := range map[string]string{"swagger-ui-bundle.js": "text/javascript; charset=utf-8", "swagger-ui.css": "text/css; charset=utf-8"} {
		packed, err := fs.ReadFile(static.FS, name+".gz")
		if err != nil {
			return fmt.Errorf("opening the documentation's %s: %w", name, err)
		}
		r.openRoute("/docs/"+name, zipped(kind, packed))
	}
	return nil
}

// plain answers with the bytes.
func plain(kind string, body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		docsHeaders(w.Header(), kind)
		_, _ = w.Write(body) // a client that is gone needs no answer
	}
}

// zipped answers with the gzip bytes as they are, or unpacked for a client that
// does not take them.
func zipped(kind string, packed []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		docsHeaders(w.Header(), kind)
		w.Header().Set("Vary", "Accept-Encoding")
		if takesGzip(r.Header.Get("Accept-Encoding")) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(packed)
			return
		}
		z, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			panic(err) //nolint:forbidigo // the embedded file is broken: shield answers 500
		}
		_, _ = io.Copy(w, z) //nolint:gosec // our own file, whose size is known
	}
}

func docsHeaders(h http.Header, kind string) {
	h.Set("Content-Type", kind)
	h.Set("Content-Security-Policy", docsCSP)
}

// takesGzip reports whether gzip is among the encodings and not refused by q=0.
func takesGzip(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		name, q, _ := strings.Cut(strings.ReplaceAll(part, " ", ""), ";")
		if strings.EqualFold(name, "gzip") {
			return strings.Trim(strings.TrimPrefix(q, "q="), "0.") != "" || q == ""
		}
	}
	return false
}

// ContractYAML returns the OpenAPI document, for docs/openapi.yaml.
func (s *Server) ContractYAML() ([]byte, error) { return s.router.api.OpenAPI().YAML() }
