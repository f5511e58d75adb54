import java.sql.DriverManager;
import java.sql.SQLException;

/** Asks PostgreSQL who we are: java -cp postgresql.jar WhoamiPostgresql.java HOST USER. */
class WhoamiPostgresql {
    public static void main(String[] arguments) throws SQLException {
        var url = "jdbc:postgresql://" + arguments[0] + "/demo?gssEncMode=require&jaasApplicationName=pgjdbc";
        try (var connection = DriverManager.getConnection(url, arguments[1], null);
                var row = connection.createStatement().executeQuery("select current_user")) {
            row.next();
            System.out.println(row.getString(1));
        }
    }
}
