import java.sql.DriverManager;

/** Logs on to SQL Server with the container's ticket and prints the name that it knows. */
public class WhoamiSqlServer {
    public static void main(String[] arguments) throws Exception {
        String url =
                "jdbc:sqlserver://" + arguments[0] + ":1433;integratedSecurity=true"
                        + ";authenticationScheme=JavaKerberos;useDefaultJaasConfig=true"
                        + ";serverSpn=MSSQLSvc/" + arguments[0] + ":1433"
                        // Only where the network is trusted; leave it out with a real server.
                        + ";encrypt=false";
        try (var connection = DriverManager.getConnection(url);
                var rows = connection.createStatement().executeQuery("select suser_sname()")) {
            rows.next();
            System.out.println(rows.getString(1));
        }
    }
}
