// SPDX-License-Identifier: Apache-2.0

// Package service holds the handlers that the three Go servers route to.
package service

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
)

// Item answers GET and HEAD with a short body, DELETE with 204.
func Item(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodDelete {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	fmt.Fprintf(w, "item %s\n", path.Base(r.URL.Path))
}

// Echo sends the body back with a Content-Length.
func Echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body)
}

// Upload answers with the number of bytes received.
func Upload(w http.ResponseWriter, r *http.Request) {
	n, _ := io.Copy(io.Discard, r.Body)
	fmt.Fprintf(w, "%d\n", n)
}

// Chunked answers in several writes without a length.
func Chunked(w http.ResponseWriter, r *http.Request) {
	for i := 0; i < 5; i++ {
		fmt.Fprintf(w, "piece %d\n", i)
		w.(http.Flusher).Flush()
	}
}

var bigBody = bytes.Repeat([]byte("b"), 200_000)

// Big answers with 200,000 bytes and a length.
func Big(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Length", strconv.Itoa(len(bigBody)))
	w.Write(bigBody)
}

// Slow answers after 20 ms.
func Slow(w http.ResponseWriter, r *http.Request) {
	time.Sleep(20 * time.Millisecond)
	io.WriteString(w, "slow\n")
}

// Close ends the connection after its answer.
func Close(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "close")
	io.WriteString(w, "closing\n")
}

// Status answers with the code in the path, /status/404/id.
func Status(w http.ResponseWriter, r *http.Request) {
	code, _ := strconv.Atoi(strings.Split(r.URL.Path, "/")[2])
	w.WriteHeader(code)
	if code != http.StatusNoContent && code != http.StatusNotModified {
		io.WriteString(w, "status\n")
	}
}

// Handlers by the first segment of the path.
var Handlers = map[string]http.HandlerFunc{
	"items": Item, "echo": Echo, "upload": Upload, "chunked": Chunked,
	"big": Big, "slow": Slow, "close": Close,
}
