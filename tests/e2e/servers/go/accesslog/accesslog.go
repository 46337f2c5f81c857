// SPDX-License-Identifier: Apache-2.0

// Package accesslog is a net/http middleware that writes one JSON line a request.
package accesslog

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	"strconv"
	"sync"
	"time"
)

type line struct {
	ID            string `json:"id"`
	Method        string `json:"method"`
	Path          string `json:"path"`
	Status        int    `json:"status"`
	RequestBytes  int    `json:"request_bytes"`
	ResponseBytes int    `json:"response_bytes"`
	DurationUs    int64  `json:"duration_us"`
	PeerPort      int    `json:"peer_port"`
}

type countingWriter struct {
	http.ResponseWriter
	status, sent int
}

func (w *countingWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *countingWriter) Write(data []byte) (int, error) {
	n, err := w.ResponseWriter.Write(data)
	w.sent += n
	return n, err
}

func (w *countingWriter) Flush() { w.ResponseWriter.(http.Flusher).Flush() }

type countingBody struct {
	io.ReadCloser
	received int
}

func (b *countingBody) Read(data []byte) (int, error) {
	n, err := b.ReadCloser.Read(data)
	b.received += n
	return n, err
}

func port(address string) int {
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		panic(err)
	}
	number, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	return number
}

// Wrap appends to the file named by ACCESS_LOG what next serves.
func Wrap(next http.Handler) http.Handler {
	file, err := os.OpenFile(os.Getenv("ACCESS_LOG"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		panic(err)
	}
	var mutex sync.Mutex
	encoder := json.NewEncoder(file)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := time.Now()
		writer := &countingWriter{ResponseWriter: w, status: 200}
		body := &countingBody{ReadCloser: r.Body}
		r.Body = body
		next.ServeHTTP(writer, r)
		sent := writer.sent
		if r.Method == http.MethodHead {
			sent = 0
		}
		mutex.Lock()
		defer mutex.Unlock()
		encoder.Encode(line{path.Base(r.URL.Path), r.Method, r.URL.Path, writer.status,
			body.received, sent, time.Since(started).Microseconds(), port(r.RemoteAddr)})
	})
}
