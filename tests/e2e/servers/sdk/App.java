// SPDX-License-Identifier: Apache-2.0
// The JDK's http server for the OpenTelemetry agent. Usage: App PORT BACKEND_PORT

import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.URI;
import java.util.concurrent.Executors;

public class App {
    public static void main(String[] words) throws IOException {
        int backend = Integer.parseInt(words[1]);
        InetAddress local = InetAddress.getByName("127.0.0.1");
        HttpServer server =
                HttpServer.create(new InetSocketAddress(local, Integer.parseInt(words[0])), 64);
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.createContext("/", exchange -> {
            String[] path = exchange.getRequestURI().getPath().split("/");
            if (path[1].equals("call")) {
                traced(backend, path[2]);
                plain(local, backend, path[2]);
            }
            byte[] body = "item\n".getBytes();
            exchange.sendResponseHeaders(200, body.length);
            try (OutputStream out = exchange.getResponseBody()) {
                out.write(body);
            }
        });
        server.start();
    }

    private static void traced(int backend, String ident) throws IOException {
        URI uri = URI.create("http://127.0.0.1:" + backend + "/traced/" + ident);
        HttpURLConnection connection = (HttpURLConnection) uri.toURL().openConnection();
        try (InputStream in = connection.getInputStream()) {
            in.readAllBytes();
        }
    }

    private static void plain(InetAddress local, int backend, String ident) throws IOException {
        try (Socket socket = new Socket(local, backend)) {
            String head = "GET /plain/" + ident + " HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n";
            socket.getOutputStream().write(head.getBytes());
            socket.getInputStream().readAllBytes();
        }
    }
}
