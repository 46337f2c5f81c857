// SPDX-License-Identifier: Apache-2.0

// Command client carries out a plan of requests with net/http and keeps a record.
//
// Usage: client PLAN LOG PORT, with PLAN and LOG in JSON lines as for raw.py. It begins when its
// standard input ends. With CLIENT_HTTP2 in its environment it takes no answer but by HTTP/2.
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"strings"
	"sync"
	"time"
)

const workers = 4

type planned struct {
	ID         string `json:"id"`
	Method     string `json:"method"`
	Path       string `json:"path"`
	Body       int    `json:"body"`
	Framing    string `json:"framing"`
	Connection string `json:"connection"`
	Style      string `json:"style"`
}

type record struct {
	ID              string `json:"id"`
	Method          string `json:"method"`
	Path            string `json:"path"`
	Style           string `json:"style"`
	Status          int    `json:"status"`
	RequestBytes    int    `json:"request_bytes"`
	RequestFraming  string `json:"request_framing"`
	ResponseBytes   int    `json:"response_bytes"`
	ResponseFraming string `json:"response_framing"`
	Reused          bool   `json:"reused"`
	LocalPort       int    `json:"local_port"`
}

// anonymous hides a reader's length, so that net/http sends chunks.
type anonymous struct{ io.Reader }

// scheme is https if CLIENT_TLS is in the environment.
func scheme() string {
	if _, found := os.LookupEnv("CLIENT_TLS"); found {
		return "https"
	}
	return "http"
}

func wantsHTTP2() bool {
	_, found := os.LookupEnv("CLIENT_HTTP2")
	return found
}

func newRequest(plan planned, port string) *http.Request {
	var body io.Reader
	text := []byte(strings.Repeat(plan.ID+".", plan.Body/(len(plan.ID)+1)+1)[:plan.Body])
	switch plan.Framing {
	case "length":
		body = bytes.NewReader(text)
	case "chunked":
		body = anonymous{bytes.NewReader(text)}
	}
	request, err := http.NewRequest(plan.Method, scheme()+"://127.0.0.1:"+port+plan.Path, body)
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("X-Request-Id", plan.ID)
	request.Close = plan.Connection == "close"
	if plan.Style == "expect" {
		request.Header.Set("Expect", "100-continue")
	}
	return request
}

func framing(plan planned, response *http.Response) string {
	switch {
	case plan.Method == http.MethodHead || response.StatusCode == 204 || response.StatusCode == 304:
		return "none"
	case len(response.TransferEncoding) > 0:
		return "chunked"
	case response.ContentLength >= 0:
		return "length"
	}
	return "close"
}

func perform(client *http.Client, plan planned, port string) record {
	result := record{ID: plan.ID, Method: plan.Method, Path: plan.Path, Style: plan.Style,
		RequestBytes: plan.Body, RequestFraming: plan.Framing}
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		result.Reused = info.Reused
		result.LocalPort = info.Conn.LocalAddr().(*net.TCPAddr).Port
	}}
	request := newRequest(plan, port)
	response, err := client.Do(request.WithContext(httptrace.WithClientTrace(request.Context(), trace)))
	if err != nil {
		log.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		log.Fatal(err)
	}
	response.Body.Close()
	if wantsHTTP2() && response.ProtoMajor != 2 {
		log.Fatal(plan.Path, " was answered by ", response.Proto)
	}
	result.Status, result.ResponseBytes = response.StatusCode, len(body)
	result.ResponseFraming = framing(plan, response)
	return result
}

func newClient() *http.Client {
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		TLSClientConfig:    &tls.Config{InsecureSkipVerify: true},
		ForceAttemptHTTP2:  wantsHTTP2(),
		DisableCompression: true, ExpectContinueTimeout: 10 * time.Second}}
}

func readPlan(path string) (plans []planned) {
	file, err := os.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var plan planned
		if err := json.Unmarshal(lines.Bytes(), &plan); err != nil {
			log.Fatal(err)
		}
		plans = append(plans, plan)
	}
	return plans
}

func main() {
	plans := readPlan(os.Args[1])
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		log.Fatal(err)
	}
	file, err := os.Create(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	encoder := json.NewEncoder(file)
	var mutex sync.Mutex
	var group sync.WaitGroup
	for worker := 0; worker < workers; worker++ {
		group.Add(1)
		go func(worker int) {
			defer group.Done()
			kept := newClient()
			for i := worker; i < len(plans); i += workers {
				client := kept
				if plans[i].Connection == "new" {
					client = newClient()
				}
				result := perform(client, plans[i], os.Args[3])
				if client != kept {
					client.CloseIdleConnections()
				}
				mutex.Lock()
				if err := encoder.Encode(result); err != nil {
					log.Fatal(err)
				}
				mutex.Unlock()
			}
		}(worker)
	}
	group.Wait()
}
