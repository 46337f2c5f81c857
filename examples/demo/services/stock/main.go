// SPDX-License-Identifier: Apache-2.0

// Stock is the demo's warehouse in Go: it answers how many pieces there are, and at what price.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
)

var (
	pricing, _ = strconv.Atoi(os.Getenv("DEMO_PRICING")) // 0: there is none
	own, _     = strconv.Atoi(os.Getenv("DEMO_STOCK"))
	lines      *os.File
	// More idle connections than the default 2 per host, so that they are kept.
	client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
)

// note appends what happened to the service's own log.
func note(kind, method string, port int, path string, status int) {
	line, err := json.Marshal(map[string]any{
		"kind": kind, "method": method, "port": port, "path": path, "status": status,
	})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := lines.Write(append(line, '\n')); err != nil {
		log.Fatal(err)
	}
}

func price(product string) (json.RawMessage, error) {
	path := "/prices/" + product
	response, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d%s", pricing, path))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	note("client", "GET", pricing, path, response.StatusCode)
	return body, err
}

func answer(request *http.Request) (int, any) {
	product, found := strings.CutPrefix(request.URL.Path, "/stock/")
	number, err := strconv.Atoi(product)
	if !found || err != nil {
		return http.StatusNotFound, map[string]string{"error": "no such product"}
	}
	said := map[string]any{"pieces": number % 17}
	if pricing != 0 {
		if said["price"], err = price(product); err != nil {
			return http.StatusBadGateway, map[string]string{"error": err.Error()}
		}
	}
	return http.StatusOK, said
}

func handle(writer http.ResponseWriter, request *http.Request) {
	status, said := answer(request)
	body, err := json.Marshal(said)
	if err != nil {
		log.Fatal(err)
	}
	writer.Header().Set("Content-Type", "application/json")
	writer.WriteHeader(status)
	if _, err := writer.Write(body); err != nil {
		log.Print(err)
	}
	note("server", request.Method, own, request.URL.Path, status)
}

func main() {
	var err error
	lines, err = os.OpenFile(os.Getenv("DEMO_LOG"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe(fmt.Sprintf("127.0.0.1:%d", own), http.HandlerFunc(handle)))
}
