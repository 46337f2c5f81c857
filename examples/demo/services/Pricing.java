// SPDX-License-Identifier: Apache-2.0

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.FileOutputStream;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.Executors;

/** The demo's prices, with the JDK's own HTTP server: java Pricing.java. */
public final class Pricing {
    private static final int PORT = Integer.parseInt(System.getenv("DEMO_PRICING"));
    private static FileOutputStream log;

    public static void main(String[] arguments) throws IOException {
        log = new FileOutputStream(System.getenv("DEMO_LOG"), true);
        InetAddress loopback = InetAddress.getByName("127.0.0.1");
        HttpServer server = HttpServer.create(new InetSocketAddress(loopback, PORT), 128);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", Pricing::handle);
        server.start();
    }

    private static void handle(HttpExchange exchange) throws IOException {
        exchange.getRequestBody().readAllBytes();
        String path = exchange.getRequestURI().getPath();
        boolean known = path.matches("/prices/\\d{1,6}");
        int status = known ? 200 : 404;
        String said = known ? price(path) : "{\"error\":\"no such product\"}";
        byte[] body = said.getBytes(StandardCharsets.UTF_8);
        exchange.getResponseHeaders().set("Content-Type", "application/json");
        exchange.sendResponseHeaders(status, body.length);
        exchange.getResponseBody().write(body);
        exchange.close();
        note(exchange.getRequestMethod(), path, status);
    }

    private static String price(String path) {
        int product = Integer.parseInt(path.substring("/prices/".length()));
        return "{\"cents\":" + (product * 37 % 9900 + 99) + "}";
    }

    /** One line of the service's own log; one write, so that threads do not mix their lines. */
    private static void note(String method, String path, int status) throws IOException {
        String line = "{\"kind\":\"server\",\"method\":\"" + method + "\",\"port\":" + PORT
                + ",\"path\":\"" + path + "\",\"status\":" + status + "}\n";
        log.write(line.getBytes(StandardCharsets.UTF_8));
    }
}
